"""The folder that a run of the study trains in belongs to one config, so that nothing of another is resumed."""

from pathlib import Path

from detectron2.config import CfgNode

from crbp_d2.utils.files import write_text

SETTINGS = "settings.yaml"


def claim_output(folder: Path, cfg: CfgNode) -> None:
    """Write `cfg` into `folder` if there is none yet.

    Raises:
        ValueError: the folder is of another config; names the keys that differ.
    """
    path = folder / SETTINGS
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, cfg.dump())
        return
    # Both as YAML holds them, without tuples.
    there, wanted = (_flat(CfgNode.load_cfg(text)) for text in (path.read_text(), cfg.dump()))
    keys = sorted(key for key in there.keys() | wanted.keys() if there.get(key) != wanted.get(key))
    if keys:
        changes = ", ".join(f"{key} {there.get(key)!r} (now {wanted.get(key)!r})" for key in keys)
        raise ValueError(f"{folder} holds a training with {changes}; remove the folder to train anew")


def _flat(node: CfgNode, prefix: str = "") -> dict[str, object]:
    flat = {}
    for key, value in node.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, CfgNode) else {f"{prefix}{key}": value}
    return flat
