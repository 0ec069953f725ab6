"""The paper's claims and those of `progressive`, each with its measure and a bound fixed here, before the runs that
decide it.

N: steps trained with; "at 4 N": after four times as many. F1 is the mean over stimuli, then over seeds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from . import state_measures as sm
from .comparisons import LONGER, Bound, Outcome, above, at_least, at_most, best, decide, f1, lost, training_time
from .dynamics import LOST, mechanism
from .paper import PATHFINDER_F1, PATHFINDER_F1_FAR
from .records import Study

NO_FIGURE, OURS = "no figure in the published tables", "not of the paper"
# F1 within which two rules are close.
CLOSE = 0.03
# Of the rule that is to be stable and expressive at once: F1 below BPTT's best with as many iterations and in equal
# time, F1 at convergence, F1 lost to 16 N, F1 above BPTT's best on longer contours.
LIKE_BPTT, LIKE_BPTT_IN_TIME, CONVERGED, FLAT, FURTHER = -0.005, -0.01, 0.97, 0.01, 0.02
# Processor seconds over BPTT's that count as equal.
EQUAL_TIME = 1.02


@dataclass(frozen=True)
class Claim:
    """One row.

    paper: what the paper reports. figure: stem of the figure that shows our side. measure: what is compared with
    which bound. evaluate: the values, and whether the claim holds.
    """

    id: str
    sentence: str
    paper: str
    figure: str
    measure: str
    evaluate: Callable[[Study], Outcome]


def _bounds(id: str, sentence: str, paper: str, figure: str, *bounds: Bound) -> Claim:
    """A claim that all of some bounds decide."""
    measure = "; ".join(map(str, bounds))
    return Claim(id, sentence, paper, figure, measure, lambda study: decide(study, bounds, _reason(study)))


def _reason(study: Study) -> Callable[[Sequence[Bound]], str]:
    return lambda missed: mechanism(study, missed)


def _f1(*runs: str) -> str:
    values = ", ".join(f"{run} {PATHFINDER_F1[run][0]:.4f}" for run in runs)
    return f"F1 on PF14: {values}"


def _far(*runs: str) -> str:
    values = ", ".join(f"{run} {PATHFINDER_F1[run][0]:.4f} to {PATHFINDER_F1_FAR[run]:.2f}" for run in runs)
    return f"F1 on PF14, trained steps to t = 40: {values}"


def _longer(*runs: str) -> str:
    values = ", ".join(f"{run} {PATHFINDER_F1[run][1]:.4f}, {PATHFINDER_F1[run][2]:.4f}" for run in runs)
    return f"trained on the longer contours themselves, F1 on PF20, PF25: {values}"


REGION = "distances from the centroid of the states at N, those at N against those at 4 N; Kolmogorov-Smirnov "
SHORT, LONG = LONGER

SCORES = (
    _bounds(
        "crbp_beats_rbp", "C-RBP is better than RBP", _f1("hgru_crbp", "hgru_rbp"), "scores",
        at_least(f1("hgru_crbp"), f1("hgru_rbp")),
    ),
    _bounds(
        "crbp_near_bptt", "C-RBP comes close to BPTT on the trained contours", _f1("hgru_crbp", "hgru_bptt"), "scores",
        at_least(f1("hgru_crbp"), f1("hgru_bptt"), -CLOSE),
    ),
    _bounds(
        "truncation_costs", "Truncated BPTT is worse than BPTT", _f1("hgru_bptt", "hgru_tbptt"), "scores",
        at_least(f1("hgru_bptt"), f1("hgru_tbptt")),
    ),
    _bounds(
        "penalty_costs_little", "The penalty costs BPTT little on the trained contours",
        _f1("hgru_bptt", "hgru_cbptt"), "scores",
        at_least(f1("hgru_cbptt"), f1("hgru_bptt"), -CLOSE),
    ),
    _bounds(
        "deq_no_better", "Finding the fixed point without the penalty (DEQ) is no better than RBP", NO_FIGURE, "scores",
        at_most(f1("hgru_deq"), f1("hgru_rbp")),
    ),
    _bounds(
        "recurrent_beats_feedforward", "Recurrence is worth more than layers at equal parameters", NO_FIGURE,
        "parameters",
        at_least(f1("hgru_bptt"), f1("ff2")), at_least(f1("hgru_crbp"), f1("ff2")),
    ),
    _bounds(
        "recurrent_beats_deeper", "C-RBP is better than a feedforward control of six layers", _f1("hgru_crbp", "ff6"),
        "parameters",
        at_least(f1("hgru_crbp"), f1("ff6")),
    ),
)  # fmt: skip
STEPS = (
    _bounds(
        "crbp_keeps", "C-RBP keeps its quality past the trained steps", _far("hgru_crbp"), "quality_per_step",
        at_most(lost("hgru_crbp"), LOST),
    ),
    _bounds(
        "bptt_loses", "BPTT loses its quality past the trained steps", _far("hgru_bptt"), "quality_per_step",
        above(lost("hgru_bptt"), LOST),
    ),
    _bounds(
        "tbptt_loses", "Truncated BPTT loses its quality past the trained steps", NO_FIGURE,
        "quality_per_step_variants",
        above(lost("hgru_tbptt"), LOST),
    ),
    _bounds(
        "every_step_loses", "BPTT with a loss on every step loses its quality past the trained steps", NO_FIGURE,
        "quality_per_step_variants",
        above(lost("hgru_bptt_every_step"), LOST),
    ),
    _bounds(
        "cbptt_loses_less", "C-BPTT loses less than BPTT", _far("hgru_cbptt", "hgru_bptt"), "quality_per_step",
        at_least(lost("hgru_bptt"), lost("hgru_cbptt")),
    ),
    _bounds(
        "crbp_longer_contours", "C-RBP generalizes better to longer contours with more steps",
        _longer("hgru_crbp", "hgru_bptt"), "longer_contours",
        *(at_least(f1("hgru_crbp", 4, spec), f1("hgru_bptt", 4, spec)) for spec in LONGER),
    ),
    _bounds(
        "crbp_longer_contours_best",
        "C-RBP generalizes better to longer contours with the best number of steps for each rule",
        _longer("hgru_crbp", "hgru_bptt"), "longer_contours",
        *(at_least(best("hgru_crbp", spec), best("hgru_bptt", spec)) for spec in LONGER),
    ),
)  # fmt: skip
STATES = (
    Claim(
        "penalty_lowers",
        "The Lipschitz penalty is lower in rules that are trained with it",
        NO_FIGURE,
        "penalty",
        f"penalty at N, mean over seeds; the greatest of {', '.join(sm.PENALIZED)} below the least of "
        f"{', '.join(sm.OTHERS)}",
        sm.lowers,
    ),
    Claim(
        "penalty_separates",
        "The Lipschitz penalty tells stable rules from unstable ones",
        NO_FIGURE,
        "penalty",
        f"penalty at N, mean over seeds; of rules that lose at most {LOST} F1 from N to 4 N the greatest below the "
        "least of those that lose more",
        sm.separates,
    ),
    Claim(
        "bptt_leaves_region",
        "BPTT's states leave the region of its solutions",
        NO_FIGURE,
        "state_space_tests",
        REGION + f"p < {sm.ALPHA} in every seed",
        lambda study: sm.leaves(study, "hgru_bptt"),
    ),
    Claim(
        "crbp_stays_in_region",
        "C-RBP's states stay in the region of its solutions",
        NO_FIGURE,
        "state_space_tests",
        REGION + f"p of at least {sm.ALPHA} in every seed",
        lambda study: sm.stays(study, "hgru_crbp"),
    ),
    Claim(
        "bptt_drifts_more",
        "BPTT's states drift further than C-RBP's",
        NO_FIGURE,
        "state_space_tests",
        f"distance between a stimulus's states at N and 4 N over the spread of the states up to N; Kolmogorov-Smirnov "
        f"p < {sm.ALPHA} and greater for hgru_bptt (Cliff's delta)",
        lambda study: sm.drifts_more(study, "hgru_bptt", "hgru_crbp"),
    ),
    Claim(
        "radius_below_one",
        "C-RBP's step contracts where it ends, more than BPTT's",
        NO_FIGURE,
        "stability",
        "spectral radius at 4 N; hgru_crbp's greatest below 1 and its mean below hgru_bptt's",
        lambda study: sm.contracts(study, "hgru_crbp", "hgru_bptt"),
    ),
)
CONVLSTM = (
    _bounds(
        "convlstm_crbp_keeps", "A ConvLSTM trained by C-RBP keeps its quality past the trained steps", NO_FIGURE,
        "quality_per_step_convlstm",
        at_most(lost("convlstm_crbp"), LOST),
    ),
    _bounds(
        "convlstm_bptt_loses", "A ConvLSTM trained by BPTT loses its quality past the trained steps", NO_FIGURE,
        "quality_per_step_convlstm",
        above(lost("convlstm_bptt"), LOST),
    ),
    Claim(
        "convlstm_bptt_leaves_region",
        "A ConvLSTM's states leave the region of its solutions after BPTT",
        NO_FIGURE,
        "state_space_tests",
        REGION + f"p < {sm.ALPHA} in every seed",
        lambda study: sm.leaves(study, "convlstm_bptt"),
    ),
    Claim(
        "convlstm_crbp_stays_in_region",
        "A ConvLSTM's states stay in the region of its solutions after C-RBP",
        NO_FIGURE,
        "state_space_tests",
        REGION + f"p of at least {sm.ALPHA} in every seed",
        lambda study: sm.stays(study, "convlstm_crbp"),
    ),
    _bounds(
        "convlstm_crbp_longer_contours", "A ConvLSTM generalizes better to longer contours with more steps after C-RBP",
        NO_FIGURE, "quality_per_step_convlstm",
        *(at_least(f1("convlstm_crbp", 4, spec), f1("convlstm_bptt", 4, spec)) for spec in LONGER),
    ),
    _bounds(
        "convlstm_progressive_keeps", "A ConvLSTM trained from random starts reaches BPTT and keeps it", OURS,
        "quality_per_step_convlstm",
        at_least(f1("convlstm_progressive"), best("convlstm_bptt"), LIKE_BPTT),
        at_most(lost("convlstm_progressive", 16), FLAT),
    ),
)  # fmt: skip


def _progressive(rule: str, start: str) -> tuple[Claim, ...]:
    """What is asked of a rule that trains from random starts, to be stable and expressive at once."""
    run, in_time, on_longer = f"hgru_{rule}", f"hgru_{rule}_time", f"pf9s_{rule}"
    return (
        _bounds(
            f"{rule}_reaches_bptt", f"{start} reaches BPTT with as many iterations", OURS, "quality_per_step",
            at_least(f1(run), best("hgru_bptt"), LIKE_BPTT),
        ),
        _bounds(
            f"{rule}_reaches_bptt_in_time", f"{start} reaches BPTT in BPTT's time", OURS, "budget",
            at_least(f1(in_time), best("hgru_bptt"), LIKE_BPTT_IN_TIME),
            at_most(training_time(in_time), training_time("hgru_bptt"), EQUAL_TIME),
        ),
        _bounds(
            f"{rule}_converges", f"{start} solves the trained contours", OURS, "quality_per_step",
            at_least(f1(run), CONVERGED),
        ),
        _bounds(
            f"{rule}_keeps", f"{start} keeps its quality to 16 times the trained steps", OURS, "quality_per_step",
            *(at_most(lost(run, multiple), FLAT) for multiple in (8, 16)),
        ),
        _bounds(
            f"{rule}_uses_more_steps", f"{start} makes longer contours gain from more steps", OURS, "longer_contours",
            *(at_least(f1(run, 2, spec), f1(run, 1, spec)) for spec in LONGER),
        ),
        _bounds(
            f"{rule}_longer_contours", f"{start} generalizes better to longer contours than BPTT at its best", OURS,
            "longer_contours",
            *(at_least(f1(run, 2, spec), best("hgru_bptt", spec), FURTHER) for spec in LONGER),
        ),
        _bounds(
            f"{rule}_beats_crbp", f"{start} is better than every form of C-RBP at equal iterations", OURS, "budget",
            *(at_least(f1(run), f1(other)) for other in ("hgru_crbp", "hgru_crbp_contracting", "hgru_crbp_random")),
        ),
        _bounds(
            f"{rule}_trained_on_longer", f"{start} does all of this when trained on longer contours too", OURS,
            "trained_on_longer",
            at_least(f1(on_longer, 1, SHORT), best("pf9s_bptt", SHORT), LIKE_BPTT),
            at_most(lost(on_longer, 16, SHORT), FLAT),
            at_least(f1(on_longer, 2, LONG), best("pf9s_bptt", LONG), FURTHER),
        ),
        Claim(
            f"{rule}_settles",
            f"{start} trains a step that contracts where it ends, more than BPTT's",
            OURS,
            "stability",
            f"spectral radius at 4 N; {run}'s greatest below 1 and its mean below hgru_bptt's",
            lambda study: sm.contracts(study, run, "hgru_bptt"),
        ),
    )  # fmt: skip


# The second rule was added, with the same bounds, after the first seed of the first one.
PROGRESSIVE = (
    *_progressive("progressive", "A random start"),
    *_progressive("progressive_far", "A random start up to 8 N"),
)
CLAIMS = (*PROGRESSIVE, *SCORES, *STEPS, *STATES, *CONVLSTM)
