"""From MODEL.RECURRENCE to a Recurrence. Nothing else reads that node."""

import math
from collections.abc import Callable

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch.nn.modules.batchnorm import _BatchNorm

from crbp_d2.cells import CELLS, FeedforwardControl, build_cell
from crbp_d2.cells.hgru import FORMS
from crbp_d2.layers.convolution import METHODS, set_convolution
from crbp_d2.layers.norms import NORMS
from crbp_d2.recurrence import PENALTIES, RULES, SOLVERS, Recurrence, learning_rule
from crbp_d2.recurrence.penalties import REDUCTIONS
from crbp_d2.suggestions import did_you_mean

# Of the mask head; the contour heads take those of the cells.
READOUT_NORMS = ("", "BN", "SyncBN", "GN")
CONTOUR_HEADS = ("ContourSegHead", "FeedforwardContourHead")


def check_recurrence_config(cfg: CfgNode) -> None:
    """Check every value of MODEL.RECURRENCE, of MODEL.CONTOUR if a contour head has it, and that they go together.

    Raises:
        ValueError: names the key, its value and the allowed values.
    """
    node = cfg.MODEL.RECURRENCE
    require = _requirement("MODEL.RECURRENCE", node)
    require(node.RULE in RULES, "RULE", ", ".join(sorted(RULES)))
    require(node.STEPS >= 1, "STEPS", "whole numbers from 1")
    require(node.TEST_STEPS >= 0, "TEST_STEPS", "whole numbers from 1, or 0 for MODEL.RECURRENCE.STEPS")
    norms = NORMS if cfg.MODEL.SEM_SEG_HEAD.NAME in CONTOUR_HEADS else READOUT_NORMS
    require(node.READOUT_NORM in norms, "READOUT_NORM", ", ".join(map(repr, norms)))
    require(node.CELL.NAME in CELLS, "CELL.NAME", ", ".join(sorted(CELLS)))
    require(node.CELL.CHANNELS >= 0, "CELL.CHANNELS", "whole numbers from 1, or 0 for the head's own")
    kernel_size = node.CELL.KERNEL_SIZE
    require(kernel_size >= 1 and kernel_size % 2 == 1, "CELL.KERNEL_SIZE", "odd numbers from 1")
    require(node.CELL.NORM in NORMS, "CELL.NORM", ", ".join(NORMS))
    require(node.CELL.TIMESCALE >= 0, "CELL.TIMESCALE", "whole numbers from 1, or 0 for MODEL.RECURRENCE.STEPS")
    require(node.CELL.FORM in FORMS, "CELL.FORM", ", ".join(FORMS))
    possible = [method for method in METHODS if method != "winograd" or kernel_size == 3]
    require(node.CELL.CONVOLUTION in possible, "CELL.CONVOLUTION", f"{', '.join(possible)} (KERNEL_SIZE {kernel_size})")
    require(node.TRUNCATION >= 1, "TRUNCATION", "whole numbers from 1")
    require(0 < node.PHANTOM_DAMPING <= 1, "PHANTOM_DAMPING", "(0, 1]")
    require(node.CHUNK_SIZE >= 0, "CHUNK_SIZE", "whole numbers from 1, or 0 for all samples at once")
    solver = node.SOLVER
    require(solver.NAME in ("", *SOLVERS), "SOLVER.NAME", f"{', '.join(sorted(SOLVERS))}, or '' for the rule's own")
    require(0 < solver.TOL < 1, "SOLVER.TOL", "(0, 1)")
    require(solver.MAX_STEPS >= 0, "SOLVER.MAX_STEPS", "whole numbers from 1, or 0 for MODEL.RECURRENCE.STEPS")
    require(solver.MEMORY >= 0, "SOLVER.MEMORY", "whole numbers from 1, or 0 for the solver's own")
    require(0 < solver.DAMPING <= 1, "SOLVER.DAMPING", "(0, 1]")
    require(node.NEUMANN.TERMS >= 0, "NEUMANN.TERMS", "whole numbers from 0")
    require(0 <= node.NEUMANN.TOL < 1, "NEUMANN.TOL", "[0, 1)")
    require(node.PENALTY.NAME in PENALTIES, "PENALTY.NAME", ", ".join(sorted(PENALTIES)))
    require(node.PENALTY.POWER_ITERATIONS >= 0, "PENALTY.POWER_ITERATIONS", "whole numbers from 0")
    require(0 <= node.PENALTY.BOUND < 1, "PENALTY.BOUND", "[0, 1)")
    require(node.PENALTY.REDUCTION in REDUCTIONS, "PENALTY.REDUCTION", ", ".join(REDUCTIONS))
    require(0 <= node.PENALTY.WEIGHT < math.inf, "PENALTY.WEIGHT", "finite numbers from 0")
    require(0 < node.EARLY_STOP.TOL < 1, "EARLY_STOP.TOL", "(0, 1)")
    _check_parts(node)
    if cfg.MODEL.SEM_SEG_HEAD.NAME in CONTOUR_HEADS:
        _check_contour(cfg)
    without_penalty = {"crbp": "rbp", "cbptt": "bptt"}
    if node.PENALTY.WEIGHT == 0 and node.RULE in without_penalty:
        raise ValueError(
            f"MODEL.RECURRENCE.PENALTY.WEIGHT is 0, which contradicts MODEL.RECURRENCE.RULE {node.RULE!r}: "
            f"give a positive weight, or RULE {without_penalty[node.RULE]!r}"
        )
    if cfg.MODEL.ROI_MASK_HEAD.NAME == "RecurrentMaskHead":
        require = _requirement("MODEL.ROI_MASK_HEAD", cfg.MODEL.ROI_MASK_HEAD)
        # A recurrent head has no convolutions for this norm: it is that of the readout.
        require(cfg.MODEL.ROI_MASK_HEAD.NORM in READOUT_NORMS, "NORM", ", ".join(map(repr, READOUT_NORMS)))


def _requirement(name: str, node: CfgNode) -> Callable[[bool, str, str], None]:
    """require(holds, key, allowed), which raises for a key of `node` that does not hold."""

    def require(holds: bool, key: str, allowed: str) -> None:
        if not holds:
            value = node
            for part in key.split("."):
                value = value[part]
            hint = did_you_mean(value, allowed.split(", "))
            raise ValueError(f"{name}.{key} is {value!r}; allowed: {allowed}{hint}")

    return require


def _check_contour(cfg: CfgNode) -> None:
    """Check MODEL.CONTOUR, and that it goes with MODEL.RECURRENCE and MODEL.SEM_SEG_HEAD."""
    node, channels = cfg.MODEL.CONTOUR, cfg.MODEL.RECURRENCE.CELL.CHANNELS
    require = _requirement("MODEL.CONTOUR", node)
    require(node.CHANNELS >= 1, "CHANNELS", "whole numbers from 1")
    require(node.STEM_KERNEL_SIZE >= 3 and node.STEM_KERNEL_SIZE % 2 == 1, "STEM_KERNEL_SIZE", "odd numbers from 3")
    require(node.NUM_LAYERS >= 1, "NUM_LAYERS", "whole numbers from 1")
    require(0 <= node.FOCAL_GAMMA < math.inf, "FOCAL_GAMMA", "finite numbers from 0")
    require(0 < node.PRIOR_PROB < 1, "PRIOR_PROB", "(0, 1)")
    head = cfg.MODEL.SEM_SEG_HEAD
    if head.NUM_CLASSES != 2:
        raise ValueError(
            f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {head.NUM_CLASSES}, but {head.NAME} tells 2 classes apart, background "
            "and target"
        )
    if list(head.IN_FEATURES) != ["stem"]:
        raise ValueError(f"MODEL.SEM_SEG_HEAD.IN_FEATURES is {head.IN_FEATURES}, but {head.NAME} reads ['stem']")
    if channels not in (0, node.CHANNELS) and head.NAME == "ContourSegHead":
        raise ValueError(
            f"MODEL.RECURRENCE.CELL.CHANNELS is {channels}, but MODEL.CONTOUR.CHANNELS is {node.CHANNELS}: a contour "
            "head is as wide as its stem, so leave the former at 0"
        )


def _check_parts(node: CfgNode) -> None:
    """Check that rule, solver and cell go together."""
    if node.CELL.FORM != "printed" and node.CELL.NAME != "HGRUCell":
        raise ValueError(
            f"MODEL.RECURRENCE.CELL.FORM is {node.CELL.FORM!r}, which only MODEL.RECURRENCE.CELL.NAME 'HGRUCell' has, "
            f"not {node.CELL.NAME!r}"
        )
    if node.CHUNK_SIZE and isinstance(NORMS[node.CELL.NORM](1), _BatchNorm):
        raise ValueError(
            f"MODEL.RECURRENCE.CHUNK_SIZE is {node.CHUNK_SIZE}, which changes the batch whose statistics "
            f"MODEL.RECURRENCE.CELL.NORM {node.CELL.NORM!r} uses: leave it at 0, or use another norm"
        )
    try:
        with torch.device("meta"):
            recurrence = learning_rule(node.RULE, build_cell(node.CELL.NAME, 4), **_rule_settings(node))
    except ValueError as error:
        raise ValueError(f"MODEL.RECURRENCE with RULE {node.RULE!r}: {error}") from error
    if node.SOLVER.MAX_STEPS and not recurrence.solver.stops_at_tol:
        raise ValueError(
            f"MODEL.RECURRENCE.SOLVER.MAX_STEPS is {node.SOLVER.MAX_STEPS}, but {recurrence.solver!r} always runs "
            "MODEL.RECURRENCE.STEPS: set SOLVER.NAME to Anderson or Broyden, or MAX_STEPS to 0"
        )
    if node.EARLY_STOP.ENABLED:
        _check_early_stop(node, recurrence.solver)


def _check_early_stop(node: CfgNode, solver) -> None:
    if solver.stops_at_tol:
        raise ValueError(
            f"MODEL.RECURRENCE.EARLY_STOP.ENABLED is True, but with MODEL.RECURRENCE.SOLVER.NAME {node.SOLVER.NAME!r} "
            f"and RULE {node.RULE!r}, {solver!r} stops every sample at a tolerance by itself: set ENABLED to False, or "
            "choose FixedSteps"
        )
    if isinstance(NORMS[node.CELL.NORM](1), _BatchNorm):
        raise ValueError(
            f"MODEL.RECURRENCE.EARLY_STOP.ENABLED is True, but MODEL.RECURRENCE.CELL.NORM {node.CELL.NORM!r} mixes the "
            "samples of a batch, so that a result would depend on which of the others have stopped: set ENABLED to "
            "False, or choose GN, LN or none"
        )


def _rule_settings(node: CfgNode) -> dict:
    return {
        "steps": node.STEPS,
        "truncation": node.TRUNCATION,
        "phantom_damping": node.PHANTOM_DAMPING,
        "num_terms": node.NEUMANN.TERMS,
        "neumann_tol": node.NEUMANN.TOL,
        "penalty": node.PENALTY.NAME,
        "power_iterations": node.PENALTY.POWER_ITERATIONS,
        "bound": node.PENALTY.BOUND,
        "reduction": node.PENALTY.REDUCTION,
        "solver": node.SOLVER.NAME,
        "tol": node.SOLVER.TOL,
        "max_steps": node.SOLVER.MAX_STEPS,
        "memory": node.SOLVER.MEMORY,
        "damping": node.SOLVER.DAMPING,
        "chunk_size": node.CHUNK_SIZE,
    }


def build_recurrence(cfg: CfgNode, channels: int) -> Recurrence:
    """The Recurrence that MODEL.RECURRENCE describes, its cell `channels` wide unless CELL.CHANNELS says otherwise.

    Raises:
        ValueError: see check_recurrence_config.
    """
    check_recurrence_config(cfg)
    node = cfg.MODEL.RECURRENCE
    form = {"form": node.CELL.FORM} if node.CELL.NAME == "HGRUCell" else {}
    cell = build_cell(
        node.CELL.NAME,
        node.CELL.CHANNELS or channels,
        kernel_size=node.CELL.KERNEL_SIZE,
        norm=node.CELL.NORM,
        timescale=node.CELL.TIMESCALE or node.STEPS,
        **form,
    )
    set_convolution(cell, node.CELL.CONVOLUTION)
    early_stop = node.EARLY_STOP.TOL if node.EARLY_STOP.ENABLED else None
    return learning_rule(node.RULE, cell, early_stop=early_stop, **_rule_settings(node))


def mask_head_settings(cfg: CfgNode) -> dict:
    """What the mask head takes from MODEL.RECURRENCE besides the recurrence itself."""
    head = cfg.MODEL.ROI_MASK_HEAD
    named = head.NORM if head.NAME == "RecurrentMaskHead" else ""
    norm = named or cfg.MODEL.RECURRENCE.READOUT_NORM
    several_gpus = comm.get_world_size() > 1 and torch.device(cfg.MODEL.DEVICE).type == "cuda"
    settings = contour_settings(cfg)
    return {**settings, "readout_norm": "BN" if norm == "SyncBN" and not several_gpus else norm}


def contour_settings(cfg: CfgNode) -> dict:
    """What the contour head takes from MODEL.RECURRENCE besides the recurrence itself."""
    node = cfg.MODEL.RECURRENCE
    return {
        "readout_norm": node.READOUT_NORM,
        "penalty_weight": node.PENALTY.WEIGHT,
        "test_steps": node.TEST_STEPS or None,
    }


def build_feedforward(cfg: CfgNode, channels: int) -> FeedforwardControl:
    """The feedforward control, its kernels and norms those of the cell in whose place it stands.

    Raises:
        ValueError: see check_recurrence_config.
    """
    check_recurrence_config(cfg)
    cell = cfg.MODEL.RECURRENCE.CELL
    control = FeedforwardControl(channels, cell.KERNEL_SIZE, cfg.MODEL.CONTOUR.NUM_LAYERS, cell.NORM)
    set_convolution(control, cell.CONVOLUTION)
    return control
