"""The authors' released parameters under the names of this package's models."""

from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

MASK_HEAD = "roi_heads.mask_head."

GALA_HGRU = {
    "alpha": "alpha",
    "mu": "mu",
    "u0_channel_gate_0.weight": "channel_gate_1.weight",
    "u0_channel_gate_0.bias": "channel_gate_1.bias",
    "u0_channel_gate_1.weight": "channel_gate_2.weight",
    "u0_spatial_gate_0": "spatial_gate_1.weight",
    "u0_spatial_bias": "spatial_gate_1.bias",
    "u0_spatial_gate_1": "spatial_gate_2.weight",
    "u0_combine_bias": "gate_bias",
    "w_gate_inh": "inhibition.weight",
    "w_gate_exc": "excitation.weight",
    "u1_gate.weight": "update_gate.weight",
    "u1_gate.bias": "update_gate.bias",
    "bn.0.weight": "inhibition_norm.weight",
    "bn.0.bias": "inhibition_norm.bias",
    "bn.1.weight": "excitation_norm.weight",
    "bn.1.bias": "excitation_norm.bias",
}

HGRU = {
    "alpha": "alpha",
    "mu": "mu",
    "kappa": "kappa",
    "gamma": "gamma",
    "w": "omega",
    "w_gate_inh": "inhibition.weight",
    "w_gate_exc": "excitation.weight",
    "u1_gate.weight": "input_gate.weight",
    "u1_gate.bias": "input_gate.bias",
    "u2_gate.weight": "update_gate.weight",
    "u2_gate.bias": "update_gate.bias",
    "bn.1.weight": "inhibition_norm.weight",
    "bn.1.bias": "inhibition_norm.bias",
    "bn.3.weight": "excitation_norm.weight",
    "bn.3.bias": "excitation_norm.bias",
}


@dataclass(frozen=True)
class Layout:
    """The layout of one kind of released file.

    entry: key of the parameters in the file.
    names: their prefixes or full names -> ours; the longest match counts, a name without one stays.
    copies: prefix -> the prefix under which the same tensors are stored once more.
    """

    entry: str
    names: dict[str, str]
    copies: dict[str, str] = field(default_factory=dict)


def _below(prefix: str, names: dict[str, str], ours: str) -> dict[str, str]:
    return {prefix + theirs: ours + name for theirs, name in names.items()}


LAYOUTS = {
    "panoptic": Layout(
        entry="model",
        names={
            **_below(f"{MASK_HEAD}recurrent.", GALA_HGRU, f"{MASK_HEAD}recurrence.cell."),
            f"{MASK_HEAD}horizontal_norm.": f"{MASK_HEAD}norm.",
        },
        copies={f"{MASK_HEAD}mask_fcn_rnn.": f"{MASK_HEAD}recurrent."},
    ),
    "pathfinder": Layout(
        entry="state_dict",
        names={
            **_below("module.unit1.", HGRU, "sem_seg_head.recurrence.cell."),
            "module.conv0.": "backbone.conv.",
            "module.bn.": "sem_seg_head.norm.",
            "module.conv6.": "sem_seg_head.predictor.",
        },
    ),
}


@dataclass(frozen=True)
class Conversion:
    """Parameters under our names, and the names of theirs that have no place in our model."""

    parameters: dict[str, Tensor]
    left_out: list[str]


def load_released(path: str | Path, kind: str) -> dict[str, Tensor]:
    """The parameters in a released file, loaded without executing code from it.

    Args:
        kind: key of LAYOUTS.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a file of tensors, or not one of this kind.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, KeyError) as error:
        raise ValueError(f"{path} is not a file of tensors that loads without executing code: {error}") from error
    entry = LAYOUTS[kind].entry
    parameters = content.get(entry, content) if isinstance(content, dict) else None
    if not isinstance(parameters, dict) or not all(isinstance(value, Tensor) for value in parameters.values()):
        raise ValueError(f"{path} holds no parameters under {entry!r}, where released {kind} files have them")
    return parameters


def convert(theirs: dict[str, Tensor], kind: str, target: dict[str, Tensor]) -> Conversion:
    """Rename released parameters to those of a model.

    Args:
        theirs: from load_released.
        kind: key of LAYOUTS.
        target: state dict of the model that will take them.

    Raises:
        ValueError: a parameter of the model is missing, of another shape, or stored twice with different
            values; the message names them.
    """
    layout = LAYOUTS[kind]
    parameters, left_out = {}, []
    for name, value in theirs.items():
        original = _original(name, layout)
        if original is not None:
            if original not in theirs or not torch.equal(value, theirs[original]):
                raise ValueError(f"{name} and {original} should be the same tensor, but differ")
            left_out.append(name)
            continue
        ours = _rename(name, layout)
        if ours not in target:
            left_out.append(name)
        elif value.squeeze().shape != target[ours].squeeze().shape:
            raise ValueError(
                f"{name} is {tuple(value.shape)}, but {ours} of a {kind} model is {tuple(target[ours].shape)}"
            )
        else:
            parameters[ours] = value.reshape(target[ours].shape)
    if missing := [name for name in target if name not in parameters]:
        raise ValueError(f"not a released {kind} file: nothing in it becomes {_listed(missing)}")
    return Conversion(parameters, left_out)


def _original(name: str, layout: Layout) -> str | None:
    for copy, original in layout.copies.items():
        if name.startswith(copy):
            return original + name.removeprefix(copy)
    return None


def _rename(name: str, layout: Layout) -> str:
    fitting = [theirs for theirs in layout.names if name == theirs or theirs[-1] == "." and name.startswith(theirs)]
    if not fitting:
        return name
    longest = max(fitting, key=len)
    return layout.names[longest] + name.removeprefix(longest)


def _listed(names: list[str], most: int = 5) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
