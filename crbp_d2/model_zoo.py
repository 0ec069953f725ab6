"""Configs by their names, from a checkout and from an installed package alike.

    cfg = model_zoo.get_config("panoptic_R50_crbp.yaml", "SOLVER.MAX_ITER", 1000)
    model = model_zoo.get("quick/panoptic_R18_crbp_toy.yaml", trained=True)

`python -m crbp_d2.model_zoo` lists the configs, and what of their weights and data is on this machine.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from crbp_d2.utils.errors import did_you_mean

if TYPE_CHECKING:
    import torch
    from detectron2.config import CfgNode
    from omegaconf import DictConfig

SUFFIXES = (".yaml", ".py")
# Beside the package in a checkout, within it once installed.
_FOLDERS = (Path(__file__).resolve().parent / "configs", Path(__file__).resolve().parent.parent / "configs")


def config_folder() -> Path:
    """The folder with all config files.

    Raises:
        FileNotFoundError: the package was copied without them.
    """
    for folder in _FOLDERS:
        if (folder / "panoptic_R50_crbp.yaml").is_file():
            return folder
    raise FileNotFoundError(
        f"crbp_d2's configs are in none of {', '.join(map(str, _FOLDERS))}; install the package again"
    )


def config_names() -> list[str]:
    """Names for get_config: YAML files and LazyConfigs, without the bases that others build on."""
    folder = config_folder()
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.suffix in SUFFIXES)
    return sorted(path.as_posix() for path in files if path.parts[0] != "bases")


def get_config_file(name: str) -> str:
    """The path of a config file.

    Args:
        name: such as "panoptic_R50_crbp.yaml" or "quick/panoptic_R18_crbp_toy.yaml".

    Raises:
        ValueError: no config has this name.
    """
    path = config_folder() / name
    inside = path.is_relative_to(config_folder()) and ".." not in Path(name).parts
    if not (inside and path.suffix in SUFFIXES and path.is_file()):
        meant = did_you_mean(name, config_names())
        raise ValueError(f"no config is named {name!r}{meant} (`python -m crbp_d2.model_zoo` lists all)")
    return str(path)


def get_config(name: str, *opts: object) -> "CfgNode | DictConfig":
    """A config, with options merged into it.

    Args:
        name: see get_config_file.
        opts: of a YAML keys and values in turn; of a LazyConfig "key=value" each.

    Returns:
        detectron2's CfgNode with the keys of add_crbp_config, or the DictConfig of a LazyConfig.

    Raises:
        ValueError: no config has this name; an unknown key, or a value of another type.
    """
    from detectron2.config import LazyConfig, get_cfg

    from crbp_d2.config import add_crbp_config
    from crbp_d2.config_file import merge_config_file, merge_options

    path = get_config_file(name)
    if path.endswith(".py"):
        return LazyConfig.apply_overrides(LazyConfig.load(path), list(opts))
    cfg = get_cfg()
    add_crbp_config(cfg)
    merge_config_file(cfg, path)
    merge_options(cfg, list(opts))
    return cfg


def get(
    name: str, *opts: object, trained: bool = False, weights: str = "", device: str | None = None
) -> "torch.nn.Module":
    """A model with its weights, in training mode as detectron2's model_zoo.get gives it.

    Args:
        name, opts: see get_config.
        trained: load what a training by this config left in its OUTPUT_DIR, else what the training begins with
            (MODEL.WEIGHTS; "" there: random weights).
        weights: a file, URL or detectron2:// name to load in place of both.
        device: default: that of the config, or the CPU where there is no GPU.

    Raises:
        FileNotFoundError: weights that are not there.
        ValueError: see get_config; weights of another model.
    """
    import torch
    from detectron2.config import CfgNode, instantiate
    from detectron2.modeling import build_model

    from crbp_d2 import modeling  # noqa: F401  (registers its parts)
    from crbp_d2.checkpoint.loading import Checkpointer, check_weights, weights_in
    from crbp_d2.modeling.compiled import check_compiled_part

    cfg = get_config(name, *opts)
    lazy = not isinstance(cfg, CfgNode)
    folder = cfg.train.output_dir if lazy else cfg.OUTPUT_DIR
    if trained and not weights:
        try:
            weights = weights_in(folder)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error}; `crbp-train --config-file {get_config_file(name)}` makes them") from None
    weights = weights or (cfg.train.init_checkpoint if lazy else cfg.MODEL.WEIGHTS)
    if weights:
        check_weights(weights)
    device = device or (cfg.train.device if lazy else cfg.MODEL.DEVICE)
    if device.startswith("cuda") and not torch.cuda.is_available():
        device = "cpu"
    if lazy:
        model = instantiate(cfg.model).to(device)
    else:
        cfg.MODEL.DEVICE = device
        check_compiled_part(cfg)
        model = build_model(cfg)
    Checkpointer(model, complete=trained).load(weights)
    return model


if __name__ == "__main__":
    from crbp_d2.cli.commands import list_models

    list_models()
