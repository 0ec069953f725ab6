"""RESULTS.md: written from the records alone.

N: steps trained with.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from .claims import Claim
from .comparisons import Outcome, Spread
from .figure_style import HGRU, ON_LONGER, STYLES, name_of
from .ledger import LONGER_NOTE, STUDY_COMMAND, Row, own_panoptic_rows, panoptic_rows, pathfinder_rows, seeds_cell
from .panoptic_results import kept_pictures
from .pilots import better_rates, pilot_loss
from .records import Study
from .runs import PILOT, RATES, RUNS, SCALES
from .scales import cost_factor, ours, papers

SMALL = SCALES["small"]
# Of N, in the table of rules.
TABLE_MULTIPLES = (1, 4, 16)
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
        + " Measures and bounds are fixed in\n[claims.py](tools/pathfinder_study/claims.py), before the runs; values "
        "are means over seeds, with the least and the greatest.",
        verdict_table(outcomes, links),
        *_failures(outcomes),
        "## Rules side by side",
        *_budget(study, links),
        "## Learning rates",
        *_learning_rates(study),
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


def verdict_table(outcomes: Sequence[tuple[Claim, Outcome]], links: dict[str, str]) -> str:
    headers = ["claim", "paper", "measure", "ours", "verdict", "figure"]
    rows = [
        [
            claim.sentence,
            claim.paper,
            claim.measure,
            values_cell(outcome),
            verdict_cell(outcome),
            links.get(claim.figure, "-"),
        ]
        for claim, outcome in outcomes
    ]
    return compact_table(headers, rows)


def verdict_cell(outcome: Outcome) -> str:
    """A verdict, and whether it is the same whichever seeds are compared."""
    seeds = {True: ", whichever seeds are compared", False: " on the mean; the seeds' ranges overlap", None: ""}
    return VERDICTS[outcome.holds] + seeds[outcome.certain]


def values_cell(outcome: Outcome) -> str:
    known = [
        f"{name} {_figure(value)}{_range(outcome.spreads.get(name))}"
        for name, value in outcome.values.items()
        if value is not None
    ]
    return ", ".join(known) if known else "-"


def _range(spread: Spread | None) -> str:
    if spread is None or spread.seeds == 1:
        return ""
    return f" ({_figure(spread.least)} to {_figure(spread.greatest)})"


def _figure(value: float | str, digits: int = 3) -> str:
    if isinstance(value, str):
        return value
    if not math.isfinite(value):
        return "-"
    if value and abs(value) < 0.0995:
        return f"{value:.{digits}f}" if abs(value) >= 10**-digits * 5 else f"{value:.1e}"
    return f"{value:.{digits}f}" if abs(value) < 10 else f"{value:,.0f}"


def _counts(outcomes: Sequence[tuple[Claim, Outcome]]) -> str:
    verdicts = [outcome.holds for _, outcome in outcomes]
    return (
        f"Of {len(verdicts)} claims {verdicts.count(True)} hold, {verdicts.count(False)} fail, "
        f"{verdicts.count(None)} are not run."
    )


def _failures(outcomes: Sequence[tuple[Claim, Outcome]]) -> list[str]:
    failing = [(claim, outcome) for claim, outcome in outcomes if outcome.holds is False]
    return [f"**{claim.sentence}: fails.** {outcome.why}" for claim, outcome in failing]


def _budget(study: Study, links: dict[str, str]) -> list[str]:
    runs = [run for run in (*HGRU, *ON_LONGER) if study[run]]
    if not runs:
        return ["Not run."]
    headers = ["rule", "N", "iterations", "training, s"]
    headers += [f"{spec} at {_times(m)}" for spec in study.specs for m in TABLE_MULTIPLES]
    headers += ["residual at 16 N", "spectral radius"]
    rows = []
    for run in runs:
        first = study.first(run)
        seconds = _mean(r.seconds.get("training", math.nan) for r in study[run])
        cells = [name_of(run), first.steps, first.iterations, f"{seconds:,.0f}" if math.isfinite(seconds) else "-"]
        cells += [seeds_cell([r.f1(spec, m) for r in study[run]]) for spec in study.specs for m in TABLE_MULTIPLES]
        cells += [_figure(_mean(r.last_residual for r in study[run]))]
        cells += [_figure(_mean(r.value("spectral_radius") for r in study[run]))]
        rows.append(cells)
    text = (
        "F1, mean over seeds with the least and the greatest. Training is in processor seconds of one thread, with "
        "another\nrun on the other core. Residual: relative change of the state in the last of 16 N steps; spectral "
        "radius: at the\nstate after 4 N."
    )
    return [f"{text} {links.get('budget', '')}".strip(), compact_table(headers, rows)]


def _times(multiple: int) -> str:
    return "N" if multiple == 1 else f"{multiple} N"


def _mean(values: Iterable[float]) -> float:
    found = [*values]
    return sum(found) / len(found)


def _learning_rates(study: Study) -> list[str]:
    better = better_rates(study)
    rows = []
    for config in dict.fromkeys(run.config for run in RUNS.values()):
        if config in better:
            losses = [_figure(pilot_loss(study, config, rate), 5) for rate in RATES]
            rows.append([config, *losses, f"{better[config] * SMALL.learning_rate:g}"])
    if not rows:
        return ["Not run."]
    rates = [f"loss at {rate * SMALL.learning_rate:g}" for rate in RATES]
    text = (
        f"Two pilots a config, of {round(PILOT * SMALL.iterations)} iterations: the training loss, mean over the last "
        "sixth of them, decides; of\nlosses within 1% of each other the greater rate is taken."
    )
    return [text, compact_table(["config", *rates, "chosen"], rows)]


def _differences(study: Study, root: Path) -> list[str]:
    recurrent = [record for record in study.records if record.steps]
    record = study.first("hgru_crbp") or next(iter([*recurrent, *study.records]), None)
    if record is None or not study.specs:
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
    others = sorted({r.steps for r in recurrent if r.steps != record.steps})
    text = "The paper's column is that of [configs/bases/pathfinder.yaml](configs/bases/pathfinder.yaml)"
    text += f"; other rules train with {', '.join(map(str, others))} steps here." if others else "."
    return [text, compact_table(["", "paper", "ours"], rows)]


def _pictures(root: Path) -> list[str]:
    links = [f"[{path.stem}]({path.relative_to(root).as_posix()})" for path in kept_pictures(root)]
    return [f"Toy scenes, feedforward and recurrent side by side: {', '.join(links)}."] if links else []


def _costs(study: Study, root: Path) -> list[str]:
    headers = ["run", "s an iteration here", "factor", "iterations", "hours extrapolated"]
    rows = []
    for run in [run for run in STYLES if study[run] and run not in ON_LONGER]:
        record = study.first(run)
        seconds = record.seconds.get("iteration", math.nan)
        if not math.isfinite(seconds):
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
