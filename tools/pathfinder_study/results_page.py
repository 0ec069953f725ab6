"""docs/RESULTS.md, written from the records.

N: steps trained with.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tools.page import wrapped

from .advice import PILOTS, advised, first_sentences, pilot_section
from .claims import REASONS, Claim
from .costs import SAVED_STEPS, load_saved
from .figure_style import CONVLSTM, HGRU, compact_table, name_of
from .harder_scenes import harder_section
from .ledger import VERDICTS
from .predicates import CONVERGED, LONGER, TRAINED, Outcome, f1, spread_cell, times
from .records import Study
from .scales import ours, papers

STUDY_COMMAND = "python -m tools.pathfinder_study"
MULTIPLES = (1, 4, 16)  # of N, in the table of rules
CURVE = "docs/pictures/quality_over_steps.png"


def results_page(
    study: Study,
    outcomes: Sequence[tuple[Claim, Outcome]],
    written: Sequence[str],
    figures: str,
    root: Path,
) -> str:
    """The whole page.

    Args:
        written: stems of the figures that exist.
        figures: their folder, relative to `root`.
    """
    harder = f"[figure]({figures}/panoptic_hard.png)" if "panoptic_hard" in written else ""
    curve = [f"![F1 over steps to 16 N of BPTT, C-RBP and {name_of(advised(study))}]({CURVE})"]
    sections = [
        "# Results",
        first_sentences(study, outcomes),
        f"Written by `{STUDY_COMMAND} --report` from the records in [runs]({Path(figures).parent}/runs). Ledger, all "
        f"measures, learning rates and costs: [VERDICTS]({VERDICTS}); all figures: "
        f"[gallery.html]({Path(figures).parent}/gallery.html).",
        *(curve if (root / CURVE).exists() else []),
        "## Rules",
        *rules_section(study, root),
        "## A rule that is both stable and expressive",
        *pilot_section(study),
        "## Claims",
        *claims_section(outcomes),
        "## Panoptic segmentation",
        *harder_section(root, harder),
        "## What differs from the paper",
        *differences(study, root),
    ]
    return wrapped(seen_from("docs", "\n\n".join(sections))) + "\n"


def seen_from(folder: str, text: str) -> str:
    """Links relative to the repository as links of a page in `folder`."""
    up = "../" * len(Path(folder).parts)
    text = re.sub(r"\]\((?!https?:|#)", f"]({up}", text)
    return text.replace(f"]({up}{folder}/", "](")


def rules_section(study: Study, root: Path) -> list[str]:
    """F1 of every converged rule on the trained and the longest contours, with its memory."""
    runs = [run for run in (*HGRU, *CONVLSTM, "ff6") if run not in PILOTS or run == advised(study)]
    rows = rule_rows(study, runs, root)
    if not rows:
        return ["Not run."]
    specs = (TRAINED, LONGER[-1])
    headers = ["rule", "N", *(f"{spec} at {times(m)}" for spec in specs for m in MULTIPLES)]
    headers.append(f"memory, MiB, {' / '.join(map(str, SAVED_STEPS))} steps")
    text = (
        f"F1 after at least {CONVERGED:,} iterations, mean over seeds with minimum and maximum. Memory: tensors saved "
        "for backward by the recurrence, batch of 16."
    )
    return [text, compact_table(headers, rows)]


def rule_rows(study: Study, runs: Sequence[str], root: Path) -> list[list[object]]:
    """Name, N, F1 at MULTIPLES of the trained and the longest contours, memory; without runs that are missing."""
    saved = load_saved(root)
    rows: list[list[object]] = []
    for run in runs:
        if f1(run).spread(study) is None:
            continue
        cells = [spread_cell(f1(run, m, spec).spread(study)) for spec in (TRAINED, LONGER[-1]) for m in MULTIPLES]
        steps = study.first(run).steps
        memory = " / ".join(f"{saved[run][t] / 2**20:.0f}" for t in SAVED_STEPS) if run in saved else "-"
        rows.append([name_of(run), steps or "-", *cells, memory])
    return rows


def claims_section(outcomes: Sequence[tuple[Claim, Outcome]]) -> list[str]:
    """A row for each claim, then each reason for a failure once."""
    rows = [
        [number, claim.sentence, claim.paper, values_cell(outcome), outcome.verdict, claim.metric]
        for number, (claim, outcome) in enumerate(outcomes, start=1)
    ]
    failed: dict[str, list[str]] = {}
    for number, (claim, outcome) in enumerate(outcomes, start=1):
        if outcome.holds is False:
            failed.setdefault(claim.why, []).append(str(number))
    reasons = [f"- {', '.join(numbers)}: {REASONS[why]}" for why, numbers in failed.items()]
    text = (
        "F1 on PF14 in the paper; PF6s here unless named, mean (minimum to maximum over seeds). Means decide; a claim "
        "is not run while one of its runs has no record. Reasons for failures follow by number."
    )
    table = compact_table(["", "claim", "paper", "ours", "verdict", "metric"], rows)
    return [text, table, *(["\n".join(reasons)] if reasons else [])]


def values_cell(outcome: Outcome) -> str:
    """The values with their labels, most of which are names of rules."""
    known = {name: spread for name, spread in outcome.values.items() if spread is not None}
    return (
        "; ".join(f"{_label(name)} {spread_cell(spread, counted=False)}".strip() for name, spread in known.items())
        or "-"
    )


def _label(name: str) -> str:
    """The rule of a quantity's name, with a spec other than the trained one and the word of a difference."""
    text, _, run = name.rpartition(" of ")
    return " ".join([run, *(word for word in text.split() if word in (*LONGER, "lost"))]) if text else ""


def differences(study: Study, root: Path) -> list[str]:
    """The scale of C-RBP compared with the paper's."""
    record = study.first("hgru_crbp") or next((r for r in study.records if r.steps), None)
    if record is None or not study.specs:
        return ["Not run."]
    small, large = asdict(ours(record, study)), asdict(papers(record.config, root))
    rows = [[name, *(scale[key] or "-" for key in small)] for name, scale in (("paper", large), ("ours", small))]
    text = (
        "Contours are shorter, images and networks smaller, and trainings shorter, so numbers compare in kind, not in "
        f"value. Learning rates are chosen by pilots; COCO has not been run. Steps are those of {name_of(record.run)}."
    )
    return [text, compact_table(["", *small], rows)]
