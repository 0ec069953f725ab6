"""The paper's claims, each with its measure and a bound fixed here, before the runs that decide it.

Of two the measure was changed after runs were there, each time to one that says what the sentence says: the states'
drift, and the penalty of stable and unstable rules, which first compared rules trained with it and without. What is
said of the ConvLSTM's states and of longer contours is the hGRU's claims again, added after the ConvLSTM's runs.

N: steps trained with; "at 4 N": after four times as many. F1 is the mean over stimuli, then over seeds.
"""

from collections.abc import Callable
from dataclasses import dataclass

from . import ablation
from . import measures as m
from . import state_measures as sm
from .measures import Outcome
from .paper import PATHFINDER_F1, PATHFINDER_F1_FAR
from .records import Study

NO_FIGURE = "no figure in the published tables"


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


def _f1(*runs: str) -> str:
    values = ", ".join(f"{run} {PATHFINDER_F1[run][0]:.4f}" for run in runs)
    return f"F1 on PF14: {values}"


def _far(*runs: str) -> str:
    values = ", ".join(f"{run} {PATHFINDER_F1[run][0]:.4f} to {PATHFINDER_F1_FAR[run]:.2f}" for run in runs)
    return f"F1 on PF14, trained steps to t = 40: {values}"


def _longer(*runs: str) -> str:
    values = ", ".join(f"{run} {PATHFINDER_F1[run][1]:.4f}, {PATHFINDER_F1[run][2]:.4f}" for run in runs)
    return f"trained on the longer contours themselves, F1 on PF20, PF25: {values}"


KEEPS = f"F1 at N minus F1 at 4 N, trained contours; at most {m.LOST}"
LOSES = f"F1 at N minus F1 at 4 N, trained contours; more than {m.LOST}"
REGION = "distances from the centroid of the states at N, those at N against those at 4 N; Kolmogorov-Smirnov "
RECIPE = f"training at most {ablation.TIME} times as long, and F1 at N minus F1 at 8 N at most {m.LOST}"
HIGHER = "F1 at N, trained contours; {} above {}"

CLAIMS = (
    Claim(
        "crbp_beats_rbp",
        "C-RBP is better than RBP",
        _f1("hgru_crbp", "hgru_rbp"),
        "generalization",
        "F1 at N, trained contours; every seed of hgru_crbp above every seed of hgru_rbp, at least 2 of each",
        lambda study: m.beyond_seeds(study, "hgru_crbp", "hgru_rbp"),
    ),
    Claim(
        "crbp_near_bptt",
        "C-RBP comes close to BPTT on the trained contours",
        _f1("hgru_crbp", "hgru_bptt"),
        "generalization",
        f"F1 at N, trained contours; hgru_crbp at most {m.CLOSE} below hgru_bptt",
        lambda study: m.close(study, "hgru_crbp", "hgru_bptt"),
    ),
    Claim(
        "truncation_costs",
        "Truncated BPTT is worse than BPTT",
        _f1("hgru_bptt", "hgru_tbptt"),
        "generalization",
        HIGHER.format("hgru_bptt", "hgru_tbptt"),
        lambda study: m.above(study, "hgru_bptt", ("hgru_tbptt",)),
    ),
    Claim(
        "penalty_costs_little",
        "The penalty costs BPTT little on the trained contours",
        _f1("hgru_bptt", "hgru_cbptt"),
        "generalization",
        f"F1 at N, trained contours; hgru_cbptt at most {m.CLOSE} below hgru_bptt",
        lambda study: m.close(study, "hgru_cbptt", "hgru_bptt"),
    ),
    Claim(
        "crbp_keeps",
        "C-RBP keeps its quality past the trained steps",
        _far("hgru_crbp"),
        "quality_per_step",
        KEEPS,
        lambda study: m.keeps(study, "hgru_crbp"),
    ),
    Claim(
        "bptt_loses",
        "BPTT loses its quality past the trained steps",
        _far("hgru_bptt"),
        "quality_per_step",
        LOSES,
        lambda study: m.loses(study, "hgru_bptt"),
    ),
    Claim(
        "tbptt_loses",
        "Truncated BPTT loses its quality past the trained steps",
        NO_FIGURE,
        "quality_per_step",
        LOSES,
        lambda study: m.loses(study, "hgru_tbptt"),
    ),
    Claim(
        "every_step_loses",
        "BPTT with a loss on every step loses its quality past the trained steps",
        NO_FIGURE,
        "quality_per_step",
        LOSES,
        lambda study: m.loses(study, "hgru_bptt_every_step"),
    ),
    Claim(
        "cbptt_loses_less",
        "C-BPTT loses less than BPTT",
        _far("hgru_cbptt", "hgru_bptt"),
        "quality_per_step",
        "F1 at N minus F1 at 4 N, trained contours; smaller for hgru_cbptt",
        lambda study: m.loses_less(study, "hgru_cbptt", "hgru_bptt"),
    ),
    Claim(
        "penalty_lowers",
        "The Lipschitz penalty is lower in rules that are trained with it",
        NO_FIGURE,
        "training",
        f"penalty at N, mean over seeds; the greatest of {', '.join(sm.PENALIZED)} below the least of "
        f"{', '.join(sm.OTHERS)}",
        sm.lowers,
    ),
    Claim(
        "penalty_separates",
        "The Lipschitz penalty tells stable rules from unstable ones",
        NO_FIGURE,
        "training",
        f"penalty at N, mean over seeds; of rules that lose at most {m.LOST} F1 from N to 4 N the greatest below the "
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
        "crbp_longer_contours",
        "C-RBP generalizes better to longer contours with more steps",
        _longer("hgru_crbp", "hgru_bptt"),
        "generalization",
        "F1 at 4 N; hgru_crbp above hgru_bptt on every set of longer contours",
        lambda study: m.longer(study, "hgru_crbp", "hgru_bptt"),
    ),
    Claim(
        "crbp_longer_contours_best",
        "C-RBP generalizes better to longer contours with the best number of steps for each rule",
        _longer("hgru_crbp", "hgru_bptt"),
        "quality_per_step",
        "greatest F1 over t up to 4 N; hgru_crbp above hgru_bptt on every set of longer contours",
        lambda study: m.longer_at_best(study, "hgru_crbp", "hgru_bptt"),
    ),
    Claim(
        "convlstm_crbp_keeps",
        "A ConvLSTM trained by C-RBP keeps its quality past the trained steps",
        NO_FIGURE,
        "quality_per_step_convlstm",
        KEEPS,
        lambda study: m.keeps(study, "convlstm_crbp"),
    ),
    Claim(
        "convlstm_bptt_loses",
        "A ConvLSTM trained by BPTT loses its quality past the trained steps",
        NO_FIGURE,
        "quality_per_step_convlstm",
        LOSES,
        lambda study: m.loses(study, "convlstm_bptt"),
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
    Claim(
        "convlstm_crbp_longer_contours",
        "A ConvLSTM generalizes better to longer contours with more steps after C-RBP",
        NO_FIGURE,
        "generalization",
        "F1 at 4 N; convlstm_crbp above convlstm_bptt on every set of longer contours",
        lambda study: m.longer(study, "convlstm_crbp", "convlstm_bptt"),
    ),
    Claim(
        "recurrent_beats_feedforward",
        "Recurrence is worth more than layers at equal parameters",
        NO_FIGURE,
        "parameters",
        HIGHER.format("hgru_bptt and hgru_crbp", "ff2"),
        lambda study: m.above_all(study, ("hgru_bptt", "hgru_crbp"), "ff2"),
    ),
    Claim(
        "recurrent_beats_deeper",
        "C-RBP is better than a feedforward control of six layers",
        _f1("hgru_crbp", "ff6"),
        "parameters",
        HIGHER.format("hgru_crbp", "ff6"),
        lambda study: m.above(study, "hgru_crbp", ("ff6",)),
    ),
    Claim(
        "deq_no_better",
        "Finding the fixed point without the penalty (DEQ) is no better than RBP",
        NO_FIGURE,
        "generalization",
        "F1 at N, trained contours; hgru_deq at most hgru_rbp",
        lambda study: m.no_better(study, "hgru_deq", "hgru_rbp"),
    ),
    Claim(
        "radius_below_one",
        "C-RBP's step contracts where it ends, more than BPTT's",
        NO_FIGURE,
        "stability",
        "spectral radius at 4 N; hgru_crbp's greatest below 1 and its mean below hgru_bptt's",
        lambda study: sm.contracts(study, "hgru_crbp", "hgru_bptt"),
    ),
    Claim(
        "recipe_reaches_bptt",
        "A fixed-point rule reaches BPTT in BPTT's time and keeps its quality",
        _f1("hgru_crbp", "hgru_bptt"),
        "recipes",
        "the row of the ablation that is best on validation stimuli in that time, F1 at N at most "
        f"{ablation.CLOSE} below the better of hgru_bptt and hgru_bptt_lr, " + RECIPE,
        lambda study: ablation.reaches(study, ablation.settings(study), ("hgru_bptt", "hgru_bptt_lr")),
    ),
    Claim(
        "recipe_holds_longer",
        "A fixed-point rule reaches BPTT and keeps its quality with three times the training",
        _f1("hgru_crbp", "hgru_bptt"),
        "recipes",
        f"F1 at N of long_contracting at most {ablation.CLOSE} below that of long_bptt_lr, " + RECIPE,
        lambda study: ablation.reaches(study, ablation.LONG, ablation.LONG_REFERENCES),
    ),
)


def evaluate_claims(study: Study) -> list[tuple[Claim, Outcome]]:
    """Every claim with what the records say of it."""
    return [(claim, claim.evaluate(study)) for claim in CLAIMS]
