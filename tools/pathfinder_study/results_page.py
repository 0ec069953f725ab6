"""RESULTS.md: written from the records alone.

N: steps trained with.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from .ablation import LONG, LONG_REFERENCES, ablation_rows, long_rows, settings
from .ablation import Row as AblationRow
from .claims import Claim
from .dynamics import seed_spread
from .figure_style import name_of
from .ledger import LONGER_NOTE, STUDY_COMMAND, Row, own_panoptic_rows, panoptic_rows, pathfinder_rows, seeds_cell
from .measures import Outcome
from .panoptic_results import kept_pictures
from .records import Study
from .scales import cost_factor, ours, papers

VERDICTS = {True: "holds", False: "**fails**", None: "not run"}
CLUSTER_COMMAND = "python -m tools.pathfinder_study --scale paper --num-gpus 8"


def results_page(
    study: Study, outcomes: Sequence[tuple[Claim, Outcome]], written: Sequence[str], figures: str, root: Path
) -> str:
    """The whole page.

    Args:
        written: stems of the figures there are.
        figures: their folder, relative to `root`.
    """
    links = {stem: f"[figure]({figures}/{stem}.png)" for stem in written}
    sections = [
        "# Results",
        _introduction(study, str(Path(figures).parent)),
        "## Ledger",
        "The paper's figures are for 15x15 kernels, 25 channels and PF14; ours for the small scale described below, so "
        'the two columns\ncompare in kind, not in value. "-": not run. t counts steps, N those trained with.',
        ledger_table([*pathfinder_rows(study), *panoptic_rows()], links),
        f"Note: {LONGER_NOTE}",
        "## Verdicts",
        _counts(outcomes)
        + " Measures and bounds are fixed in\n[claims.py](tools/pathfinder_study/claims.py); values are "
        "F1 where nothing else is said.\nThese are short trainings, and longer ones can turn a verdict: see the last "
        "table of the next section, and `make pathfinder` in the\n[README](README.md) for C-RBP with twice the "
        "iterations, which then loses more past N.",
        verdict_table(study, outcomes, links),
        *_failures(outcomes),
        "## Fixed-point rules in other settings",
        *_ablation(study, links),
        "## What differs from the paper",
        *_differences(study, root),
        "## The paper's scale",
        *_costs(study, root),
        "## Panoptic models of our own",
        "Not comparable with COCO val2017, nor the toy scenes with the two images: from random initialisation, in "
        "minutes on\na processor (in percent).",
        compact_table(["what", "ours", "command", "machine"], own_panoptic_rows(root)),
        *([f"Quality per step of the toy model: {links['panoptic_toy']}."] if "panoptic_toy" in links else []),
        *_pictures(root),
    ]
    return _seen_from_docs("\n\n".join(sections)) + "\n"


def _seen_from_docs(text: str) -> str:
    """Links relative to the repository as links of a page in docs/."""
    return re.sub(r"\]\((?!https?:|#)", "](../", text)


def _introduction(study: Study, folder: str) -> str:
    machines = sorted({record.machine for record in study.records})
    text = (
        f"Written by `{STUDY_COMMAND}` from the records in `{folder}/runs`. All of it with pictures:\n"
        f"[gallery.html]({folder}/gallery.html); for programs: [summary.json]({folder}/summary.json)."
    )
    if machines:
        text += f"\n\nMeasured on {'; and on '.join(machines)}."
    spread, count = seed_spread(study)
    if count:
        text += (
            f"\nF1 at N on the trained contours differs by at most {spread:.3f} between the seeds of a run ({count} "
            "runs with\nseveral seeds): verdicts that less than that decides are marked."
        )
    return text


def compact_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table without padding, as one long cell would widen every line."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)


def ledger_table(rows: Sequence[Row], links: dict[str, str]) -> str:
    headers = ["", "paper", "ours (small scale)", "figure", "command"]
    return compact_table(
        headers,
        [
            [r.quantity, r.paper, r.ours, links.get(r.figure, "-"), f"`{r.command}`" if " " in r.command else r.command]
            for r in rows
        ],
    )


def verdict_table(study: Study, outcomes: Sequence[tuple[Claim, Outcome]], links: dict[str, str]) -> str:
    headers = ["claim", "paper", "measure", "ours", "verdict", "figure"]
    spread, _ = seed_spread(study)
    rows = [
        [
            claim.sentence,
            claim.paper,
            claim.measure,
            values_cell(outcome),
            verdict_cell(outcome, spread),
            links.get(claim.figure, "-"),
        ]
        for claim, outcome in outcomes
    ]
    return compact_table(headers, rows)


def verdict_cell(outcome: Outcome, spread: float) -> str:
    """A verdict, and whether it is decided by less than seeds differ by."""
    narrow = outcome.margin is not None and abs(outcome.margin) < spread
    return VERDICTS[outcome.holds] + (", by less than the seeds' spread" if narrow else "")


def values_cell(outcome: Outcome) -> str:
    known = [f"{name} {_figure(value)}" for name, value in outcome.values.items() if value is not None]
    return ", ".join(known) if known else "-"


def _figure(value: float | str, digits: int = 3) -> str:
    if isinstance(value, str):
        return value
    if not math.isfinite(value):
        return "-"
    if value and abs(value) < 0.0995:
        return f"{value:.{digits}f}" if abs(value) >= 10**-digits * 5 else f"{value:.1e}"
    return f"{value:.{digits}f}" if abs(value) < 10 else f"{value:.1f}"


def _counts(outcomes: Sequence[tuple[Claim, Outcome]]) -> str:
    verdicts = [outcome.holds for _, outcome in outcomes]
    return (
        f"Of {len(verdicts)} claims {verdicts.count(True)} hold, {verdicts.count(False)} fail, "
        f"{verdicts.count(None)} are not run."
    )


def _failures(outcomes: Sequence[tuple[Claim, Outcome]]) -> list[str]:
    failing = [(claim, outcome) for claim, outcome in outcomes if outcome.holds is False]
    return [f"**{claim.sentence}: fails.** {outcome.why}" for claim, outcome in failing]


def _ablation(study: Study, links: dict[str, str]) -> list[str]:
    rows = ablation_rows(study)
    if not rows:
        return ["Not run."]
    stimuli = rows[0].first.long[study.specs[0]].stimuli
    text = (
        "BPTT and C-RBP as in the paper and BPTT at a better learning rate, then fixed-point rules in other settings:\n"
        "plain or Anderson steps (N of them) forward, terms of the Neumann series backward, gates that start half\n"
        "open in place of chronos biases (`CELL.TIMESCALE` 2), another weight of the Lipschitz penalty, or in its\n"
        "place the contraction penalty (growth along the Jacobian's leading direction, above this bound).\n\n"
        f"Lost: F1 at N minus F1 later, on {stimuli} stimuli. Training is in processor seconds of one thread, with "
        "another\nrun on the other core"
    )
    if found := _same_work(study):
        text += f": the same work took {found} in two runs"
    text += (
        ". Residual and Lipschitz penalty (also of rows trained\nwith another one) are those at N on fixed validation "
        "stimuli."
    )
    parts = [f"{text} {links.get('recipes', '')}".strip(), _ablation_table(study, rows)]
    if longer := long_rows(study):
        parts += ["The same two with three times the training:", _ablation_table(study, longer)]
    return parts


def _same_work(study: Study) -> str:
    """Training times of two runs that differ in their learning rate alone."""
    pair = [record.seconds.get("training") for run in ("hgru_bptt", "hgru_bptt_lr") if (record := study.first(run))]
    return f"{pair[0]:.0f} and {pair[1]:.0f} s" if len(pair) == 2 and all(pair) else ""


def _ablation_table(study: Study, rows: Sequence[AblationRow]) -> str:
    trained, longer = study.specs[0], study.specs[1]
    headers = ["setting", "N", f"F1 {trained} at N", f"F1 {trained} at 4 N", f"F1 {longer} at N", f"F1 {longer} at 4 N",
               f"lost on {trained} to 8 N", "to 16 N", f"lost on {longer} to 8 N", "s an iteration", "training, s",
               "iterations", "residual at the end", "Lipschitz penalty at the end"]  # fmt: skip
    cells = [
        [
            row.label,
            row.first.steps,
            *(
                seeds_cell([record.f1(spec, multiple) for record in row.records])
                for spec in (trained, longer)
                for multiple in (1, 4)
            ),
            *(f"{row.lost(spec, m):+.3f}" for spec, m in ((trained, 8), (trained, 16), (longer, 8))),
            _figure(row.seconds("iteration")),
            f"{row.seconds('training'):.0f}",
            row.first.iterations,
            _figure(row.last("residual")),
            _figure(row.last("penalty")),
        ]
        for row in rows
    ]
    return compact_table(headers, cells)


def _differences(study: Study, root: Path) -> list[str]:
    recurrent = [record for record in study.records if record.steps]
    record = study.first("hgru_crbp") or next(iter([*recurrent, *study.records]), None)
    if record is None:
        return ["Not run."]
    small, large = asdict(ours(record, study)), asdict(papers(record.config, root))
    names = {
        "image": "image side, px",
        "dashes": "dashes of a contour",
        "channels": "channels",
        "kernel": "kernel side",
        "batch": "batch",
        "iterations": "iterations",
        "steps": f"steps, {name_of(record.run)}",
    }
    rows = [[name, large[key] or "-", small[key] or "-"] for key, name in names.items()]
    others = sorted({r.steps for r in study.records if r.steps and r.steps != record.steps})
    text = "The paper's column is that of [configs/bases/pathfinder.yaml](configs/bases/pathfinder.yaml)"
    text += f"; other rules train with {', '.join(map(str, others))} steps here." if others else "."
    return [text, compact_table(["", "paper", "ours"], rows)]


def _pictures(root: Path) -> list[str]:
    links = [f"[{path.stem}]({path.relative_to(root).as_posix()})" for path in kept_pictures(root)]
    return [f"Toy scenes, feedforward and recurrent side by side: {', '.join(links)}."] if links else []


def _costs(study: Study, root: Path) -> list[str]:
    headers = ["run", "s an iteration here", "factor", "iterations", "hours extrapolated"]
    rows = []
    other = {*settings(study), *LONG, *LONG_REFERENCES}
    for run in study.runs:
        record = study.first(run)
        seconds = record.seconds.get("iteration", math.nan)
        if run in other or not math.isfinite(seconds):
            continue
        large = papers(record.config, root)
        factor = cost_factor(ours(record, study), large)
        hours = seconds * factor * large.iterations / 3600
        rows.append([run, _figure(seconds), f"{factor:.0f}", large.iterations, f"{hours:,.0f}"])
    command = f"On a cluster: `{CLUSTER_COMMAND}`; `--only` and `--seeds` choose runs."
    if not rows:
        return ["Not run.", command]
    text = (
        "Extrapolated to the paper's scale on the machine above, not measured. Assumed: time grows in proportion to "
        "the\nimages of a batch, their pixels, the square of the channels and the steps; the kernel's extent costs "
        "nothing, as\nlarge kernels go by Fourier transform."
    )
    return [text, compact_table(headers, rows), command]
