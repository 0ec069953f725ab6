"""Recurrent vision modules trained at their fixed point, for detectron2.

`crbp_d2.recurrence` and `crbp_d2.cells` need only torch. Every name below needs detectron2, and
importing one of them also registers this package's heads and models in detectron2's registries.
"""

from importlib import import_module

__version__ = "0.3.0"

_HOME = {
    "add_crbp_config": "crbp_d2.config",
    "Trainer": "crbp_d2.engine",
    "register_builtin": "crbp_d2.data",
    "register_panoptic": "crbp_d2.data",
    "register_pathfinder": "crbp_d2.data",
    "register_toy_panoptic": "crbp_d2.data",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'crbp_d2' has no attribute {name!r}")
    import_module("crbp_d2.modeling")
    return getattr(import_module(_HOME[name]), name)
