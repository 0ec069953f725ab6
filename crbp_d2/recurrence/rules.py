"""The learning rules: each a row that says which solver, gradient, penalty and supervision go together."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from inspect import signature
from typing import Any

from crbp_d2.utils.errors import SettingError, check_whole
from crbp_d2.utils.table import Table

from .gradients.chunked import Chunked
from .gradients.implicit import Implicit
from .gradients.phantom import Phantom
from .gradients.unrolled import Truncated, Unrolled
from .interfaces import Cell
from .penalties import ContractionPenalty, LipschitzPenalty
from .recurrence import Recurrence
from .solvers.anderson import Anderson
from .solvers.broyden import Broyden
from .solvers.early_exit import EarlyExit
from .solvers.fixed_steps import FixedSteps
from .solvers.neumann import NeumannSeries
from .solvers.random_steps import RandomSteps
from .supervision import Mixed, Supervision


def _default(part: Callable[..., Any], argument: str) -> Any:
    """What the constructor of a part says, so that it is said once."""
    return signature(part).parameters[argument].default


@dataclass(frozen=True)
class RuleSettings:
    """The numbers a rule may use; a rule ignores those it has no use for, but all must be valid.

    steps: forward steps. truncation: see Truncated, Phantom. phantom_damping: see Phantom. fixed_weight: see Mixed.
    num_terms, neumann_tol: see NeumannSeries.
    penalty: a name in PENALTIES, of rules that have one. bound, reduction, power_iterations: see LipschitzPenalty,
    ContractionPenalty. solver: a name in SOLVERS, "" for the rule's own.
    tol: see Anderson and Broyden. max_steps: of a solver that stops at a tolerance, 0 for `steps`.
    memory: of Anderson and Broyden, 0 for the solver's own. damping: of Anderson. chunk_size: of Chunked, around the
    rule's gradient, 0 for none. early_stop: the residual of EarlyExit, around the rule's solver, None for none.

    Raises:
        SettingError: an invalid value, by its name here.
    """

    steps: int
    truncation: int = _default(Truncated, "truncation")
    phantom_damping: float = _default(Phantom, "damping")
    fixed_weight: float = _default(Mixed, "fixed_weight")
    num_terms: int = _default(NeumannSeries, "num_terms")
    neumann_tol: float = _default(NeumannSeries, "tol")
    penalty: str = "Lipschitz"
    bound: float = _default(LipschitzPenalty, "bound")
    reduction: str = _default(LipschitzPenalty, "reduction")
    power_iterations: int = _default(ContractionPenalty, "iterations")
    solver: str = ""
    tol: float = _default(Anderson, "tol")
    max_steps: int = 0
    memory: int = 0
    damping: float = _default(Anderson, "damping")
    chunk_size: int = 0
    early_stop: float | None = None

    def __post_init__(self) -> None:
        with _in_own_words():
            check_whole("learning_rule", 0, max_steps=self.max_steps, memory=self.memory, chunk_size=self.chunk_size)
            plain, series = FixedSteps(self.steps), NeumannSeries(self.num_terms, self.neumann_tol)
            Truncated(self.truncation)
            Phantom(self.truncation, self.phantom_damping)
            Mixed(self.fixed_weight)
            Anderson(damping=self.damping, tol=self.tol)
            LipschitzPenalty(self.bound, self.reduction)
            ContractionPenalty(self.bound, self.reduction, self.power_iterations)
            if self.chunk_size:
                Chunked(Implicit(series), self.chunk_size)
            if self.early_stop is not None:
                EarlyExit(plain, self.early_stop)
            PENALTIES[self.penalty]
            if self.solver != "":
                SOLVERS[self.solver]


# Arguments of parts that `learning_rule` knows by another name.
RENAMED = {
    ("Chunked", "size"): "chunk_size",
    ("ContractionPenalty", "iterations"): "power_iterations",
    ("EarlyExit", "tol"): "early_stop",
    ("NeumannSeries", "tol"): "neumann_tol",
    ("Phantom", "damping"): "phantom_damping",
}


@contextmanager
def _in_own_words() -> Iterator[None]:
    """While it lasts, errors of the parts name the settings of `learning_rule`."""
    try:
        yield
    except SettingError as error:
        raise error.renamed(lambda owner, name: RENAMED.get((owner, name), name), "learning_rule") from error


# Times `steps` that the longest run of FarSteps takes in training.
FAR = 8

Part = Callable[[RuleSettings], Any]


def _accelerated(cls: type, *names: str) -> Part:
    def build(settings: RuleSettings):
        values = {name: getattr(settings, name) for name in names}
        if settings.memory:
            values["memory"] = settings.memory
        return cls(tol=settings.tol, max_steps=settings.max_steps or settings.steps, **values)

    return build


def _random_steps(settings: RuleSettings) -> RandomSteps:
    """From the recorded steps alone to as many more than `steps` as these are fewer, so `steps` on average."""
    low = min(settings.truncation, settings.steps)
    return RandomSteps(low, 2 * settings.steps - low, settings.steps)


def _far_steps(settings: RuleSettings) -> RandomSteps:
    """From the recorded steps alone to FAR times `steps`, most runs short and some long."""
    return RandomSteps(min(settings.truncation, settings.steps), FAR * settings.steps, settings.steps, draw="log")


SOLVERS: Table[Part] = Table(
    "solver",
    {
        "FixedSteps": lambda s: FixedSteps(s.steps),
        "RandomSteps": _random_steps,
        "FarSteps": _far_steps,
        "Anderson": _accelerated(Anderson, "damping"),
        "Broyden": _accelerated(Broyden),
    },
)

PENALTIES: Table[Part] = Table(
    "penalty",
    {
        "Lipschitz": lambda s: LipschitzPenalty(s.bound, s.reduction),
        "Contraction": lambda s: ContractionPenalty(s.bound, s.reduction, s.power_iterations),
    },
)


@dataclass(frozen=True)
class Rule:
    """One row.

    gradient: function of the settings and the solver (for a gradient that solves with the same one).
    solver: name in SOLVERS of the forward run.
    penalty: function of the settings, or None.
    supervision: function of the settings.
    """

    gradient: Callable[[RuleSettings, Any], Any]
    solver: str = "FixedSteps"
    penalty: Part | None = None
    supervision: Callable[[RuleSettings], Supervision] = lambda settings: "last"


def _unrolled(settings: RuleSettings, solver) -> Unrolled:
    return Unrolled()


def _truncated(settings: RuleSettings, solver) -> Truncated:
    return Truncated(settings.truncation)


def _phantom(settings: RuleSettings, solver) -> Phantom:
    return Phantom(settings.truncation, settings.phantom_damping)


def _neumann(settings: RuleSettings, solver) -> Implicit:
    return Implicit(NeumannSeries(settings.num_terms, settings.neumann_tol))


def _same_solver(settings: RuleSettings, solver) -> Implicit:
    return Implicit(solver)


def _penalty(settings: RuleSettings):
    return PENALTIES[settings.penalty](settings)


RULES: Table[Rule] = Table(
    "rule",
    {
        "bptt": Rule(_unrolled),
        "tbptt": Rule(_truncated),
        "bptt_every_step": Rule(_unrolled, supervision=lambda settings: "every"),
        "cbptt": Rule(_unrolled, penalty=_penalty),
        "rbp": Rule(_neumann),
        "crbp": Rule(_neumann, penalty=_penalty),
        "crbp_random": Rule(_neumann, solver="RandomSteps", penalty=_penalty),
        "progressive": Rule(_truncated, solver="RandomSteps"),
        "progressive_far": Rule(_truncated, solver="FarSteps"),
        "progressive_mixed": Rule(_truncated, solver="FarSteps", supervision=lambda s: Mixed(s.fixed_weight)),
        "deq": Rule(_same_solver, solver="Anderson"),
        "phantom": Rule(_phantom, solver="Anderson"),
    },
)


def learning_rule(name: str, cell: Cell, steps: int, **settings: Any) -> Recurrence:
    """The Recurrence of a rule by its name in RULES.

    Args:
        name: key of RULES.
        cell: see Recurrence.
        steps, settings: see RuleSettings.

    Raises:
        SettingError: an unknown name, or a value that its part rejects.
        ContradictionError: settings or parts that contradict each other.
        TypeError: an unknown setting.
    """
    known = [f.name for f in fields(RuleSettings)]
    for setting in settings:
        if setting not in known:
            raise TypeError(f"learning_rule: unknown setting {setting!r}; known: {', '.join(known)}")
    values = RuleSettings(steps, **settings)
    with _in_own_words():
        rule = RULES[name]
        solver = SOLVERS[values.solver or rule.solver](values)
        penalty = rule.penalty(values) if rule.penalty else None
        gradient = rule.gradient(values, solver)
        if values.chunk_size:
            gradient = Chunked(gradient, values.chunk_size)
        if values.early_stop is not None:
            solver = EarlyExit(solver, values.early_stop)
        return Recurrence(cell, solver, gradient, penalty, rule.supervision(values))
