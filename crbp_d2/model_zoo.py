"""Configs by their names, from a checkout and from an installed package alike.

    cfg = model_zoo.get_config("panoptic_R50_crbp.yaml", "SOLVER.MAX_ITER", 1000)
    model = model_zoo.get("quick/panoptic_R18_crbp_toy.yaml", trained=True)

`crbp-list-models` lists the configs, with those of their weights and data that are on this machine.
"""

from importlib import import_module
from pathlib import Path

from detectron2.config import CfgNode, LazyConfig
from omegaconf import DictConfig

from crbp_d2.config_file import load_config
from crbp_d2.utils.errors import did_you_mean

SUFFIXES = (".yaml", ".py")
# In an installed package, and in a checkout.
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
        raise ValueError(f"no config is named {name!r}{meant} (`crbp-list-models` lists all)")
    return str(path)


def get_config(name: str, *opts: object) -> CfgNode | DictConfig:
    """A config, with options merged into it.

    Args:
        name: see get_config_file.
        opts: keys and values in turn for a YAML, "key=value" each for a LazyConfig.

    Returns:
        detectron2's CfgNode with the keys of add_crbp_config, or the DictConfig of a LazyConfig.

    Raises:
        ValueError: no config has this name; an unknown key, or a value of another type.
    """
    path = get_config_file(name)
    if path.endswith(".py"):
        return LazyConfig.apply_overrides(LazyConfig.load(path), list(opts))
    return load_config(path, opts)


def __getattr__(name: str):
    # Models are built by packages that import this one.
    if name == "get":
        return import_module("crbp_d2.checkpoint.zoo").get
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
