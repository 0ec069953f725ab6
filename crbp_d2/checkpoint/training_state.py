"""What a checkpoint has to hold so that a training can go on from it."""

from typing import Any

import torch

# Parts of the state of detectron2's trainers, and those with parts of their own.
PARTS = ("iteration", "hooks", "_trainer", "optimizer", "state", "param_groups")
NESTED = ("_trainer", "optimizer")


def training_fault(content: dict, own: dict[str, Any]) -> str:
    """What keeps a training from going on from a checkpoint, "" if nothing does.

    Args:
        content: of the checkpoint.
        own: state of each part of the training as it is now, by its name in `content`.
    """
    values = [name for name, v in content["model"].items() if torch.is_tensor(v) and not v.isfinite().all()]
    if values:
        return f"{values[0]} is not finite"
    for name, state in own.items():
        if fault := _fault(state, content[name], name):
            return fault
        if "iteration" in state and content[name]["iteration"] != content["iteration"]:
            return f"{name} is at iteration {content[name]['iteration']!r}, but the file at {content['iteration']}"
    return ""


def _fault(own: dict[str, Any], found: Any, name: str) -> str:
    if not isinstance(found, dict):
        return f"{name} is a {type(found).__name__}"
    for key in PARTS:
        if key not in own:
            continue
        # Hooks may have been added since.
        if key not in found and key != "hooks":
            return f"{name}.{key} is missing"
        if type(found.get(key, own[key])) is not type(own[key]):
            return f"{name}.{key} is a {type(found[key]).__name__}"
        if key in NESTED and (fault := _fault(own[key], found[key], f"{name}.{key}")):
            return fault
    groups = found.get("param_groups", ())
    if any(not isinstance(group, dict) or not isinstance(group.get("params"), list) for group in groups):
        return f"{name}.param_groups is no list of groups"
    return ""
