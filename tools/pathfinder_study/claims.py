"""The paper's claims and ours: a sentence, the paper's number and the predicates that decide it, fixed before the runs.

N: steps trained with; "at 4 N": after four times as many. F1 is the mean over stimuli, then over seeds.
"""

from dataclasses import dataclass
from pathlib import Path

from .harder_scenes import BASELINE, BEST, RULES, load_panoptic
from .paper import PANOPTIC, PATHFINDER_F1, PATHFINDER_F1_FAR
from .predicates import (
    LONGER,
    Bound,
    Outcome,
    Predicate,
    Separates,
    above,
    best,
    close,
    contracts,
    decide_all,
    f1,
    keeps,
    leaves,
    loses,
    stays,
)
from .records import Study

# F1 within which two rules are close.
CLOSE = 0.03
# Bounds of a rule that is stable and expressive at once: F1 below BPTT's best, F1 lost to 16 N, F1 above BPTT's best on
# longer contours.
LIKE_BPTT, FLAT, FURTHER = 0.005, 0.01, 0.02
SHORT, LONG = LONGER
HGRU_RULES = ("hgru_crbp", "hgru_cbptt", "hgru_bptt", "hgru_tbptt", "hgru_bptt_every_step", "hgru_rbp")

# Why claims fail at this size, a sentence each; a claim names one.
REASONS = {
    "easy": "Six dashes are within reach of six feedforward layers; the contours on which the paper's rules differ are "
    "longer.",
    "series": "The penalty does not make C-RBP's step contract at this size, so that its Neumann series is not the "
    "gradient of a fixed point.",
    "columns": "The penalty bounds column sums of the Jacobian, in which signs cancel, and not its eigenvalues, so "
    "that it is low in unstable rules too.",
    "readout": "BPTT solves longer contours too at the t of its readout, and loses them only with more steps.",
    "shared": "A random start trains the readout at many t, of which N is one, and pays at N for being flat.",
    "slow": "The spectral radius stays near 1, so that states drift slowly past the steps seen in training.",
    "margin": "BPTT at its best t leaves less than the required margin on PF9s.",
    "noise": "The gain is smaller than the differences between seeds.",
}


@dataclass(frozen=True)
class Claim:
    """One row. paper: the paper's numbers. why: key of REASONS, shown if the claim fails."""

    sentence: str
    paper: str
    why: str
    predicates: tuple[Predicate, ...]

    @property
    def metric(self) -> str:
        """The metrics of the predicates; one that several share is written once."""
        parts = [predicate.metric.rpartition(": ") for predicate in self.predicates]
        shared = len({prefix for prefix, _, _ in parts}) == 1
        return "; ".join(text if shared and n else prefix + sep + text for n, (prefix, sep, text) in enumerate(parts))


def _claim(sentence: str, paper: str, why: str, *predicates: Predicate) -> Claim:
    return Claim(sentence, paper, why, predicates)


def _paper(*runs: str, column: int = 0) -> str:
    return " / ".join(f"{PATHFINDER_F1[run][column]:.3f}" for run in runs)


def _far(run: str) -> str:
    return f"{PATHFINDER_F1[run][0]:.3f} to {PATHFINDER_F1_FAR[run]:.2f}"


def _better_longer(left: str, right: str) -> tuple[Bound, ...]:
    return tuple(above(f1(left, 4, spec), f1(right, 4, spec)) for spec in LONGER)


PAPERS = (
    _claim("C-RBP is better than RBP", _paper("hgru_crbp", "hgru_rbp"), "series",
           above(f1("hgru_crbp"), f1("hgru_rbp"))),
    _claim("C-RBP comes close to BPTT", _paper("hgru_crbp", "hgru_bptt"), "series",
           close(f1("hgru_crbp"), f1("hgru_bptt"), CLOSE)),
    _claim("Truncated BPTT is worse than BPTT", _paper("hgru_tbptt", "hgru_bptt"), "easy",
           above(f1("hgru_bptt"), f1("hgru_tbptt"))),
    _claim("The penalty costs BPTT little", _paper("hgru_cbptt", "hgru_bptt"), "columns",
           close(f1("hgru_cbptt"), f1("hgru_bptt"), CLOSE)),
    _claim("DEQ, without the penalty, is no better than RBP", "-", "easy",
           Bound(f1("hgru_deq"), f1("hgru_rbp"), sign=-1)),
    _claim("Recurrence beats layers at equal parameters", "-", "easy",
           above(f1("hgru_bptt"), f1("ff2")), above(f1("hgru_crbp"), f1("ff2"))),
    _claim("C-RBP beats six feedforward layers", _paper("hgru_crbp", "ff6"), "easy", above(f1("hgru_crbp"), f1("ff6"))),
    _claim("C-RBP keeps its quality past N", _far("hgru_crbp"), "series", keeps("hgru_crbp")),
    _claim("BPTT loses its quality past N", _far("hgru_bptt"), "easy", loses("hgru_bptt")),
    _claim("Truncated BPTT loses its quality past N", "-", "easy", loses("hgru_tbptt")),
    _claim("BPTT with a loss on every step loses its quality past N", "-", "easy", loses("hgru_bptt_every_step")),
    _claim("C-BPTT keeps its quality better than BPTT", _far("hgru_cbptt"), "columns",
           above(f1("hgru_cbptt", 4), f1("hgru_bptt", 4))),
    _claim("C-RBP is better on longer contours with more steps", _paper("hgru_crbp", "hgru_bptt", column=2), "series",
           *_better_longer("hgru_crbp", "hgru_bptt")),
    _claim("C-RBP is better on longer contours at the best t of each", "-", "readout",
           *(above(best("hgru_crbp", spec), best("hgru_bptt", spec)) for spec in LONGER)),
    _claim("The penalty tells stable rules from unstable ones", "-", "columns", Separates(HGRU_RULES)),
    _claim("BPTT's states leave the region of its solutions", "-", "easy", leaves("hgru_bptt")),
    _claim("C-RBP's states stay in the region of its solutions", "-", "series", stays("hgru_crbp")),
    _claim("C-RBP's step contracts", "-", "series", contracts("hgru_crbp")),
    _claim("A ConvLSTM trained by C-RBP keeps its quality past N", "-", "series", keeps("convlstm_crbp")),
    _claim("A ConvLSTM trained by BPTT loses its quality past N", "-", "easy", loses("convlstm_bptt")),
    _claim("A ConvLSTM is better on longer contours after C-RBP", "-", "readout",
           *_better_longer("convlstm_crbp", "convlstm_bptt")),
)  # fmt: skip
OURS = (
    _claim("Random starts up to N reach BPTT", "-", "shared",
           close(f1("hgru_progressive"), best("hgru_bptt"), LIKE_BPTT)),
    _claim("Random starts up to N are flat to 16 N", "-", "slow", keeps("hgru_progressive", 16, FLAT)),
    _claim("Random starts up to 8 N reach BPTT", "-", "shared",
           close(f1("hgru_progressive_far"), best("hgru_bptt"), LIKE_BPTT)),
    _claim("Random starts up to 8 N are flat to 16 N", "-", "slow", keeps("hgru_progressive_far", 16, FLAT)),
    _claim("Random starts up to 8 N beat every form of C-RBP", "-", "shared",
           *(above(f1("hgru_progressive_far"), f1(run)) for run in
             ("hgru_crbp", "hgru_crbp_contracting", "hgru_crbp_random"))),
    _claim("Random starts up to 8 N generalize to longer contours", "-", "margin",
           *(above(f1("hgru_progressive_far", 2, spec), best("hgru_bptt", spec), FURTHER) for spec in LONGER)),
    _claim("Random starts up to 8 N are flat and like BPTT when trained on PF9s", "-", "shared",
           close(f1("pf9s_progressive_far", 1, SHORT), best("pf9s_bptt", SHORT), LIKE_BPTT),
           keeps("pf9s_progressive_far", 16, FLAT, SHORT)),
    _claim("Random starts give a ConvLSTM that is flat and like BPTT", "-", "shared",
           close(f1("convlstm_progressive"), best("convlstm_bptt"), LIKE_BPTT),
           keeps("convlstm_progressive", 16, FLAT)),
)  # fmt: skip


@dataclass(frozen=True)
class PanopticGain:
    """The 95% interval of the paired difference in PQ things over seeds is above 0."""

    root: Path

    @property
    def metric(self) -> str:
        return f"PQ things, harder scenes: 95% interval of {RULES[BEST][0]} - {RULES[BASELINE][0]} > 0"

    def decide(self, study: Study) -> Outcome:
        panoptic = load_panoptic(self.root)
        gain = panoptic.gain(BEST)
        if gain is None or not panoptic.complete(BASELINE, BEST):
            return Outcome({self.metric: None}, None)
        return Outcome({self.metric: gain.spread}, gain.low > 0)


def evaluate_claims(study: Study, root: Path) -> list[tuple[Claim, Outcome]]:
    """Every claim with its outcome, the paper's first; panoptic records are found from `root`."""
    quality = " / ".join(f"{PANOPTIC[name][0]:.2f}" for name in ("panoptic_R50_crbp", "panoptic_R50_baseline"))
    head = _claim(
        "A recurrent mask head is better than four convolutions", f"PQ {quality}", "noise", PanopticGain(root)
    )
    return [(claim, decide_all(study, claim.predicates)) for claim in (*PAPERS, head, *OURS)]
