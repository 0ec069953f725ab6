"""Every claim with its verdict, at convergence or, where that is open, after the shorter trainings."""

from dataclasses import replace

from .claims import CLAIMS, Claim
from .comparisons import Outcome
from .records import Study
from .runs import SCALES

# Figures of the shorter trainings that are not called as those at convergence.
EARLIER_FIGURES = {
    "scores": "generalization",
    "longer_contours": "generalization",
    "quality_per_step_variants": "quality_per_step",
    "penalty": "training",
    "budget": "recipes",
}


def figure_path(claim: Claim, outcome: Outcome, figures: str) -> str:
    """Of the claim's figure, relative to the repository; `figures`: folder of those at convergence."""
    if not outcome.earlier:
        return f"{figures}/{claim.figure}.png"
    return f"{SCALES['small_1000'].folder}/figures/{EARLIER_FIGURES.get(claim.figure, claim.figure)}.png"


def evaluate_claims(study: Study, earlier: Study | None = None) -> list[tuple[Claim, Outcome]]:
    """Every claim with what the records say of it; of one that they leave open, what those of `earlier` say."""
    outcomes = []
    for claim in CLAIMS:
        outcome = claim.evaluate(study)
        if outcome.holds is None and earlier:
            other = claim.evaluate(earlier)
            outcome = outcome if other.holds is None else replace(other, earlier=True)
        outcomes.append((claim, outcome))
    return outcomes
