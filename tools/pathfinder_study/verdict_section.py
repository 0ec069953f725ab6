"""The claims on the page of results: a table of verdicts, then what was measured for each."""

from collections.abc import Sequence

from .claims import Claim
from .comparisons import Outcome, Spread
from .rule_tables import compact_table, figure_cell
from .verdicts import figure_path

VERDICTS = {True: "holds", False: "**fails**", None: "not run"}


def verdict_section(outcomes: Sequence[tuple[Claim, Outcome]], links: dict[str, str]) -> list[str]:
    """Paragraphs and a table; `links` as in results_page."""
    text = (
        " Measures and bounds are fixed in [claims.py](tools/pathfinder_study/claims.py), before the runs; values are "
        "means over seeds, with the least and the greatest. Where a run at convergence has no record yet, the verdict "
        "is that of 1,000 iterations, and says so."
    )
    details = [_details(number, claim, outcome) for number, (claim, outcome) in enumerate(outcomes, start=1)]
    return [_counts(outcomes) + text, verdict_table(outcomes, links), "### Measures and reasons", *details]


def verdict_table(outcomes: Sequence[tuple[Claim, Outcome]], links: dict[str, str]) -> str:
    rows = [
        [
            number,
            claim.sentence,
            verdict_cell(outcome),
            f"[figure]({figure_path(claim, outcome, '')})" if outcome.earlier else links.get(claim.figure, "-"),
        ]
        for number, (claim, outcome) in enumerate(outcomes, start=1)
    ]
    return compact_table(["", "claim", "verdict", "figure"], rows)


def verdict_cell(outcome: Outcome) -> str:
    """A verdict, and whether it is the same whichever seeds are compared."""
    seeds = {True: ", whichever seeds are compared", False: " on the mean; the seeds' ranges overlap", None: ""}
    return VERDICTS[outcome.holds] + seeds[outcome.certain] + (" (1,000 iterations)" if outcome.earlier else "")


def values_cell(outcome: Outcome) -> str:
    known = [
        f"{name} {figure_cell(value)}{_range(outcome.spreads.get(name))}"
        for name, value in outcome.values.items()
        if value is not None
    ]
    return ", ".join(known) if known else "-"


def _range(spread: Spread | None) -> str:
    if spread is None or spread.seeds == 1:
        return ""
    return f" ({figure_cell(spread.least)} to {figure_cell(spread.greatest)})"


def _counts(outcomes: Sequence[tuple[Claim, Outcome]]) -> str:
    verdicts = [outcome.holds for _, outcome in outcomes]
    return (
        f"Of {len(verdicts)} claims {verdicts.count(True)} hold, {verdicts.count(False)} fail, "
        f"{verdicts.count(None)} are not run."
    )


def _details(number: int, claim: Claim, outcome: Outcome) -> str:
    text = f"**{number}. {claim.sentence}: {verdict_cell(outcome).replace('**', '')}.** Measure: {claim.measure}. "
    text += f"Paper: {claim.paper}. Ours: {values_cell(outcome)}."
    return f"{text} {outcome.why}" if outcome.holds is False else text
