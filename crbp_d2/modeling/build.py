"""Builds the parts of a recurrent model from a config; nothing else builds from MODEL.RECURRENCE.

Only the constructors know ranges and choices. ARGUMENTS maps keys to their arguments, and the names in an error that a
constructor raises back to keys.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from detectron2.config import CfgNode, configurable, get_cfg
from detectron2.utils import comm

from crbp_d2.cells import FeedforwardControl, build_cell, takes
from crbp_d2.config import add_crbp_config, require_keys
from crbp_d2.config_file import value_of
from crbp_d2.layers.convolution import set_convolution
from crbp_d2.recurrence import ContractionPenalty, EarlyExit, Recurrence, learning_rule
from crbp_d2.recurrence.cell_step import mixing_norms
from crbp_d2.recurrence.rules import has_penalty
from crbp_d2.utils.errors import ContradictionError, SettingError, check_whole

# Key -> argument of `learning_rule`, of the cell or of the head; with its class in front where two have it.
ARGUMENTS = {
    "MODEL.RECURRENCE.RULE": "rule",
    "MODEL.RECURRENCE.STEPS": "steps",
    "MODEL.RECURRENCE.TRUNCATION": "truncation",
    "MODEL.RECURRENCE.PHANTOM_DAMPING": "phantom_damping",
    "MODEL.RECURRENCE.FIXED_WEIGHT": "fixed_weight",
    "MODEL.RECURRENCE.SOLVER.NAME": "solver",
    "MODEL.RECURRENCE.SOLVER.TOL": "tol",
    "MODEL.RECURRENCE.SOLVER.MAX_STEPS": "max_steps",
    "MODEL.RECURRENCE.SOLVER.MEMORY": "memory",
    "MODEL.RECURRENCE.SOLVER.DAMPING": "damping",
    "MODEL.RECURRENCE.NEUMANN.TERMS": "num_terms",
    "MODEL.RECURRENCE.NEUMANN.TOL": "neumann_tol",
    "MODEL.RECURRENCE.PENALTY.NAME": "penalty",
    "MODEL.RECURRENCE.PENALTY.BOUND": "bound",
    "MODEL.RECURRENCE.PENALTY.REDUCTION": "reduction",
    "MODEL.RECURRENCE.PENALTY.POWER_ITERATIONS": "power_iterations",
    "MODEL.RECURRENCE.EARLY_STOP.TOL": "early_stop",
    "MODEL.RECURRENCE.CELL.NAME": "cell",
    "MODEL.RECURRENCE.CELL.CHANNELS": "channels",
    "MODEL.RECURRENCE.CELL.KERNEL_SIZE": "kernel_size",
    "MODEL.RECURRENCE.CELL.NORM": "norm",
    "MODEL.RECURRENCE.CELL.TIMESCALE": "timescale",
    "MODEL.RECURRENCE.CELL.START": "start",
    "MODEL.RECURRENCE.CELL.FORM": "form",
    "MODEL.RECURRENCE.CELL.CONVOLUTION": "convolution",
    "MODEL.RECURRENCE.TEST_STEPS": "test_steps",
    "MODEL.RECURRENCE.READOUT_NORM": "readout_norm",
    "MODEL.RECURRENCE.PENALTY.WEIGHT": "penalty_weight",
    "MODEL.CONTOUR.CHANNELS": "ContourStem.channels",
    "MODEL.CONTOUR.STEM_KERNEL_SIZE": "ContourStem.kernel_size",
    "MODEL.CONTOUR.NUM_LAYERS": "num_layers",
    "MODEL.CONTOUR.FOCAL_GAMMA": "focal_gamma",
    "MODEL.CONTOUR.PRIOR_PROB": "prior_prob",
}
KEYS = {argument: key for key, argument in ARGUMENTS.items()}
# Arguments of parts that `learning_rule` has by another name.
KEYS |= {
    "ContractionPenalty.iterations": KEYS["power_iterations"],
    "EarlyExit.tol": KEYS["early_stop"],
    "NeumannSeries.tol": KEYS["neumann_tol"],
    "Phantom.damping": KEYS["phantom_damping"],
}
# Arguments of `learning_rule` that every config gives.
RULE_SETTINGS = ("truncation", "phantom_damping", "fixed_weight", "num_terms", "neumann_tol", "bound", "reduction",
                 "power_iterations", "solver", "tol", "max_steps", "memory", "damping")  # fmt: skip
# Whose default, 0 or "", leaves the choice to the constructor or to another key.
OWN = [KEYS[argument] for argument in ("channels", "kernel_size", "norm", "timescale", "test_steps")]
# Parts, which several keys may have chosen.
PARTS = {
    "gradient": ["MODEL.RECURRENCE.RULE"],
    "recurrence": ["MODEL.RECURRENCE.RULE"],
    "supervision": ["MODEL.RECURRENCE.RULE"],
    "solver": ["MODEL.RECURRENCE.SOLVER.NAME", "MODEL.RECURRENCE.RULE"],
    "EarlyExit.tol": ["MODEL.RECURRENCE.EARLY_STOP.ENABLED"],
    "stem_channels": ["MODEL.CONTOUR.CHANNELS"],
}
DEFAULTS = get_cfg()
add_crbp_config(DEFAULTS)


def arguments(cfg: CfgNode, *names: str) -> dict[str, Any]:
    """The values of the keys that become these arguments, by argument."""
    return {name.rpartition(".")[2]: value_of(cfg, KEYS[name]) for name in names}


@contextmanager
def errors_by_key(cfg: CfgNode) -> Iterator[None]:
    """While it lasts, a SettingError of a constructor names the key, as it is in `cfg`, in place of the argument."""
    try:
        yield
    except ContradictionError as error:
        keys = [
            key
            for name in error.settings
            for key in PARTS.get(f"{error.owner}.{name}") or PARTS.get(name) or _keys_of(cfg, error.owner, name)
        ]
        if not keys:
            raise
        raise ContradictionError({key: value_of(cfg, key) for key in keys}, error.reason) from error
    except SettingError as error:
        for key in _keys_of(cfg, error.owner, error.name):
            allowed = error.allowed
            if key in OWN:
                none = value_of(DEFAULTS, key)
                allowed = f"{allowed}, or {none!r}" if isinstance(allowed, str) else (*allowed, none)
            origin = " (0: the width of the head)" if key == KEYS["channels"] and not value_of(cfg, key) else ""
            raise SettingError(key + origin, error.value, allowed) from error
        raise


def _keys_of(cfg: CfgNode, owner: str, name: str) -> list[str]:
    if name == "readout_norm":
        return [readout_norm_key(cfg)]
    key = KEYS.get(f"{owner}.{name}", KEYS.get(name))
    return [key] if key else []


def keyed(init: Callable[..., None]) -> Callable[..., None]:
    """detectron2's `configurable` for an `__init__` that names invalid values by their keys."""
    wrapped = configurable(init)

    @functools.wraps(wrapped)
    def by_key(self: Any, *args: Any, **kwargs: Any) -> None:
        cfg = kwargs.get("cfg", args[0] if args else None)
        if isinstance(cfg, CfgNode):
            require_keys(cfg)
        with errors_by_key(cfg) if isinstance(cfg, CfgNode) else nullcontext():
            wrapped(self, *args, **kwargs)

    return by_key


def build_recurrence(cfg: CfgNode, channels: int) -> Recurrence:
    """The Recurrence that MODEL.RECURRENCE describes, its cell `channels` wide unless CELL.CHANNELS says otherwise.

    Raises:
        SettingError: an invalid value, by its key.
        ContradictionError: keys that contradict each other.
    """
    node = cfg.MODEL.RECURRENCE
    with errors_by_key(cfg):
        enabled = node.EARLY_STOP.ENABLED
        if enabled not in (None, True, False):
            raise SettingError("MODEL.RECURRENCE.EARLY_STOP.ENABLED", enabled, "True, False, or None")
        check_whole("learning_rule", steps=node.STEPS)
        cell: Any = build_cell(node.CELL.NAME, node.CELL.CHANNELS or channels, **_cell_settings(cfg))
        set_convolution(cell, node.CELL.CONVOLUTION)
        settings = arguments(cfg, *RULE_SETTINGS)
        if has_penalty(node.RULE):
            settings["penalty"] = node.PENALTY.NAME
        elif value_of(DEFAULTS, KEYS["penalty"]) != node.PENALTY.NAME:
            raise ContradictionError(
                {"penalty": node.PENALTY.NAME, "rule": node.RULE},
                "this rule has no penalty; leave the name out, or choose a rule with one, such as 'crbp' or 'cbptt'",
            )
        recurrence = learning_rule(node.RULE, cell, node.STEPS, **settings)
        solver = recurrence.solver
        if settings["max_steps"] and not solver.stops_at_tol:
            raise ContradictionError(
                {"max_steps": settings["max_steps"], "solver": solver},
                f"{solver!r} always runs all its steps; choose Anderson or Broyden, or leave MAX_STEPS at 0",
            )
        if _settles(cfg, recurrence) if enabled is None else enabled:
            recurrence.solver = EarlyExit(solver, node.EARLY_STOP.TOL)
        if node.CELL.COMPILE:
            cell.compile()
    return recurrence


def _settles(cfg: CfgNode, recurrence: Recurrence) -> bool:
    """True if the states are trained to settle, each sample by itself, and no later ones are evaluated."""
    contracting = isinstance(recurrence.penalty, ContractionPenalty) and not recurrence.solver.stops_at_tol
    return contracting and not mixing_norms(recurrence.cell) and not cfg.TEST.STEPS_TO_EVALUATE


def _cell_settings(cfg: CfgNode) -> dict[str, Any]:
    """Settings that are not the cell's own defaults."""
    node = cfg.MODEL.RECURRENCE
    given = arguments(cfg, "kernel_size", "norm", "timescale", "start", "form")
    settings = {name: value for name, value in given.items() if value != value_of(DEFAULTS, KEYS[name])}
    if not node.CELL.TIMESCALE and takes(node.CELL.NAME, "timescale"):
        settings["timescale"] = node.STEPS
    return settings


def build_feedforward(cfg: CfgNode, channels: int) -> FeedforwardControl:
    """The feedforward control, its kernels and norms those of the cell that it replaces.

    Raises:
        SettingError: an invalid value, by its key.
    """
    with errors_by_key(cfg):
        given = {name: value for name, value in arguments(cfg, "kernel_size", "norm").items() if value}
        control = FeedforwardControl(channels, num_layers=cfg.MODEL.CONTOUR.NUM_LAYERS, **given)
        set_convolution(control, cfg.MODEL.RECURRENCE.CELL.CONVOLUTION)
    return control


def readout_norm_key(cfg: CfgNode) -> str:
    """MODEL.RECURRENCE.READOUT_NORM, or the norm of the mask head, which takes its place where one is given."""
    head = cfg.MODEL.ROI_MASK_HEAD
    return "MODEL.ROI_MASK_HEAD.NORM" if head.NAME == "RecurrentMaskHead" and head.NORM else KEYS["readout_norm"]


def head_settings(cfg: CfgNode) -> dict[str, Any]:
    """Settings of a head in MODEL.RECURRENCE besides the recurrence itself."""
    settings = arguments(cfg, "readout_norm", "penalty_weight", "test_steps")
    return {**settings, "test_steps": settings["test_steps"] or None}


def panoptic_head_settings(cfg: CfgNode) -> dict[str, Any]:
    """`head_settings` of the mask head and the semantic head, whose norm may be detectron2's."""
    norm = value_of(cfg, readout_norm_key(cfg))
    several_gpus = comm.get_world_size() > 1 and torch.device(cfg.MODEL.DEVICE).type == "cuda"
    return {**head_settings(cfg), "readout_norm": "BN" if norm == "SyncBN" and not several_gpus else norm}
