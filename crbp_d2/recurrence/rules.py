"""The learning rules by name: for each a function that chooses solver, gradient, penalty and supervision of a cell.

cell: see Recurrence. steps: forward steps N. solver, penalty: a part, or a name in SOLVERS or PENALTIES.
"""

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

from crbp_d2.utils.errors import ContradictionError
from crbp_d2.utils.table import Table

from .gradients.implicit import Implicit
from .gradients.phantom import Phantom
from .gradients.unrolled import Truncated, Unrolled
from .interfaces import Cell, Penalty, Solver
from .penalties import ContractionPenalty, LipschitzPenalty
from .recurrence import Recurrence
from .solvers.anderson import Anderson
from .solvers.broyden import Broyden
from .solvers.early_exit import EarlyExit
from .solvers.fixed_steps import FixedSteps
from .solvers.neumann import NeumannSeries
from .solvers.random_steps import RandomSteps
from .supervision import Mixed

# The longest training run of "FarSteps", as a multiple of `steps`.
FAR = 8


def _random_steps(steps: int, truncation: int = 3) -> RandomSteps:
    """From `truncation` steps to as many more than `steps`, so `steps` on average."""
    low = min(truncation, steps)
    return RandomSteps(low, 2 * steps - low, steps)


def _far_steps(steps: int, truncation: int = 3) -> RandomSteps:
    """From `truncation` to FAR times `steps`, most runs short and some long."""
    return RandomSteps(min(truncation, steps), FAR * steps, steps, draw="log")


def _anderson(steps: int, tol: float = 1e-3, max_steps: int = 0, memory: int = 0, damping: float = 1.0) -> Anderson:
    """max_steps 0: `steps`; memory 0: the solver's own default."""
    return Anderson(memory or 5, damping, tol, max_steps or steps)


def _broyden(steps: int, tol: float = 1e-3, max_steps: int = 0, memory: int = 0) -> Broyden:
    """max_steps 0: `steps`; memory 0: the solver's own default."""
    return Broyden(memory or 20, tol, max_steps or steps)


def _contraction(bound: float = 0.9, reduction: str = "sum", power_iterations: int = 3) -> ContractionPenalty:
    return ContractionPenalty(bound, reduction, power_iterations)


def _fixed_steps(steps: int) -> FixedSteps:
    return FixedSteps(steps)


SOLVERS: Table[Callable[..., Solver]] = Table(
    "solver",
    {
        "FixedSteps": _fixed_steps,
        "RandomSteps": _random_steps,
        "FarSteps": _far_steps,
        "Anderson": _anderson,
        "Broyden": _broyden,
    },
)
PENALTIES: Table[Callable[..., Penalty]] = Table(
    "penalty", {"Lipschitz": LipschitzPenalty, "Contraction": _contraction}
)


def bptt(cell: Cell, steps: int, *, solver: Solver | str = "FixedSteps") -> Recurrence:
    """Back-propagation through time."""
    return Recurrence(cell, _solver(solver, steps), Unrolled())


def tbptt(cell: Cell, steps: int, *, solver: Solver | str = "FixedSteps", truncation: int = 3) -> Recurrence:
    """Truncated back-propagation through time."""
    return Recurrence(cell, _solver(solver, steps), Truncated(truncation))


def bptt_every_step(cell: Cell, steps: int, *, solver: Solver | str = "FixedSteps") -> Recurrence:
    """Back-propagation through time with a loss on every step."""
    return Recurrence(cell, _solver(solver, steps), Unrolled(), supervision="every")


def cbptt(
    cell: Cell, steps: int, *, solver: Solver | str = "FixedSteps", penalty: Penalty | str = "Lipschitz"
) -> Recurrence:
    """Contractor back-propagation through time: `bptt` with a Lipschitz penalty (paper, section 2.3)."""
    return Recurrence(cell, _solver(solver, steps), Unrolled(), _penalty(penalty))


def rbp(
    cell: Cell,
    steps: int,
    *,
    solver: Solver | str = "FixedSteps",
    num_terms: int = 15,
    neumann_tol: float = 0.0,
) -> Recurrence:
    """Recurrent back-propagation: the gradient at the fixed point by a Neumann series (paper, section 2.2)."""
    return Recurrence(cell, _solver(solver, steps), Implicit(NeumannSeries(num_terms, neumann_tol)))


def crbp(
    cell: Cell,
    steps: int,
    *,
    solver: Solver | str = "FixedSteps",
    num_terms: int = 15,
    neumann_tol: float = 0.0,
    penalty: Penalty | str = "Lipschitz",
) -> Recurrence:
    """Contractor recurrent back-propagation: `rbp` with a Lipschitz penalty (paper, section 2.3)."""
    gradient = Implicit(NeumannSeries(num_terms, neumann_tol))
    return Recurrence(cell, _solver(solver, steps), gradient, _penalty(penalty))


def crbp_random(
    cell: Cell,
    steps: int,
    *,
    solver: Solver | str = "RandomSteps",
    truncation: int = 3,
    num_terms: int = 15,
    neumann_tol: float = 0.0,
    penalty: Penalty | str = "Lipschitz",
) -> Recurrence:
    """`crbp` after a random number of steps, at least `truncation`."""
    return crbp(
        cell, steps, solver=_solver(solver, steps, truncation), num_terms=num_terms, neumann_tol=neumann_tol,
        penalty=penalty,
    )  # fmt: skip


def progressive(cell: Cell, steps: int, *, solver: Solver | str = "RandomSteps", truncation: int = 3) -> Recurrence:
    """The last `truncation` of a random number of steps (Bansal et al. 2022)."""
    return Recurrence(cell, _solver(solver, steps, truncation), Truncated(truncation))


def progressive_far(cell: Cell, steps: int, *, solver: Solver | str = "FarSteps", truncation: int = 3) -> Recurrence:
    """`progressive` with up to FAR times `steps`."""
    return progressive(cell, steps, solver=solver, truncation=truncation)


def progressive_mixed(
    cell: Cell,
    steps: int,
    *,
    solver: Solver | str = "FarSteps",
    truncation: int = 3,
    fixed_weight: float = 0.5,
) -> Recurrence:
    """`progressive_far`, with a loss also after `steps` steps; see Mixed."""
    return Recurrence(cell, _solver(solver, steps, truncation), Truncated(truncation), None, Mixed(fixed_weight))


def deq(cell: Cell, steps: int, *, solver: Solver | str = "Anderson") -> Recurrence:
    """Deep equilibrium model: the same solver forward and for the gradient (Bai et al. 2019)."""
    solver = _solver(solver, steps)
    return Recurrence(cell, solver, Implicit(solver))


def phantom(
    cell: Cell,
    steps: int,
    *,
    solver: Solver | str = "Anderson",
    truncation: int = 3,
    phantom_damping: float = 0.5,
) -> Recurrence:
    """Phantom gradient at the end of a solve (Geng et al. 2021)."""
    return Recurrence(cell, _solver(solver, steps), Phantom(truncation, phantom_damping))


RULES: Table[Callable[..., Recurrence]] = Table(
    "rule",
    {
        "bptt": bptt,
        "tbptt": tbptt,
        "bptt_every_step": bptt_every_step,
        "cbptt": cbptt,
        "rbp": rbp,
        "crbp": crbp,
        "crbp_random": crbp_random,
        "progressive": progressive,
        "progressive_far": progressive_far,
        "progressive_mixed": progressive_mixed,
        "deq": deq,
        "phantom": phantom,
    },
)


def learning_rule(
    name: str,
    cell: Cell,
    steps: int,
    *,
    solver: str = "",
    penalty: str = "",
    early_stop: float | None = None,
    **settings: Any,
) -> Recurrence:
    """The Recurrence of a rule by its name.

    Args:
        name: a name in RULES.
        cell, steps: see the rule.
        solver: a name in SOLVERS; "": the rule's own.
        penalty: a name in PENALTIES, for a rule with a penalty; "": the paper's.
        early_stop: residual of an EarlyExit around the solver; None: no early exit.
        settings: arguments of the rules, solvers and penalties in this module, by name. Those that the rule and
            its parts do not take have no effect.

    Raises:
        SettingError: an unknown name, or a value that a part rejects.
        ContradictionError: parts that contradict each other; a penalty for a rule without one.
        TypeError: an unknown setting.
    """
    rule = RULES[name]
    own = signature(rule).parameters
    known = {argument for table in (RULES, SOLVERS, PENALTIES) for part in table.values() for argument in
             signature(part).parameters} - {"cell"}  # fmt: skip
    for setting in settings:
        if setting not in known:
            raise TypeError(f"learning_rule: unknown setting {setting!r}; known: {', '.join(sorted(known))}")
    if penalty and "penalty" not in own:
        raise ContradictionError({"penalty": penalty, "rule": name}, "this rule has no penalty", "learning_rule")
    parts: dict[str, Any] = {}
    if "solver" in own:
        solve = SOLVERS[solver if solver != "" else own["solver"].default]
        parts["solver"] = _call(solve, {**settings, "steps": steps})
        if early_stop is not None:
            parts["solver"] = EarlyExit(parts["solver"], early_stop)
    elif solver or early_stop is not None:
        raise ContradictionError({"solver": solver, "rule": name}, "this rule has a solver of its own", "learning_rule")
    if "penalty" in own:
        parts["penalty"] = _call(PENALTIES[penalty if penalty != "" else own["penalty"].default], settings)
    return _call(rule, {**settings, **parts, "cell": cell, "steps": steps})


def has_penalty(name: str) -> bool:
    """Return whether the rule of this name has a penalty."""
    return "penalty" in signature(RULES[name]).parameters


def _solver(solver: Solver | str, steps: int, truncation: int = 3) -> Solver:
    return _call(SOLVERS[solver], {"steps": steps, "truncation": truncation}) if isinstance(solver, str) else solver


def _penalty(penalty: Penalty | str) -> Penalty:
    return PENALTIES[penalty]() if isinstance(penalty, str) else penalty


def _call(function: Callable[..., Any], settings: Mapping[str, Any]) -> Any:
    """`function` with those of the settings that it takes."""
    return function(**{name: settings[name] for name in signature(function).parameters if name in settings})
