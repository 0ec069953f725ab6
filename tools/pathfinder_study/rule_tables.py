"""The tables of rules on the page of results: at convergence, after shorter trainings, and their learning rates.

N: steps trained with.
"""

import math
from collections.abc import Iterable, Sequence

from .dynamics import series_lacks
from .figure_style import HGRU, ON_LONGER, name_of
from .ledger import STUDY_COMMAND, seeds_cell
from .pilots import better_rates, pilot_loss
from .records import Study
from .runs import PILOT, RATES, RUNS, SCALES

SMALL, EARLIER = SCALES["small"], SCALES["small_1000"]
# Of N, in the table of rules.
TABLE_MULTIPLES = (1, 4, 16)
# Rules that train by a Neumann series.
SERIES = ("hgru_crbp", "hgru_crbp_contracting", "hgru_crbp_random", "hgru_rbp")
LONGEST_CELL = 120


def compact_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table without padding, as one long cell would widen every line."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)


def table_with_notes(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """A table, and below it the cells that are too long for one."""
    notes: list[str] = []
    short = []
    for row in rows:
        cells = [str(cell) for cell in row]
        for k, cell in enumerate(cells):
            if len(cell) > LONGEST_CELL:
                notes.append(f"Note {len(notes) + 1}, on {cells[0]}: {cell}")
                cells[k] = f"note {len(notes)}"
        short.append(cells)
    return [compact_table(headers, short), *notes]


def figure_cell(value: float | str, digits: int = 3) -> str:
    if isinstance(value, str):
        return value
    if not math.isfinite(value):
        return "-"
    if value and abs(value) < 0.0995:
        return f"{value:.{digits}f}" if abs(value) >= 10**-digits * 5 else f"{value:.1e}"
    return f"{value:.{digits}f}" if abs(value) < 10 else f"{value:,.0f}"


def budget_section(study: Study, links: dict[str, str]) -> list[str]:
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
        cells += [figure_cell(_mean(r.last_residual for r in study[run]))]
        cells += [figure_cell(_mean(r.value("spectral_radius") for r in study[run]))]
        rows.append(cells)
    text = (
        "F1, mean over seeds with the least and the greatest. Training is in processor seconds of one thread, with "
        "another\nrun on the other core. Residual: relative change of the state in the last of 16 N steps; spectral "
        "radius: at the\nstate after 4 N."
    )
    reasons = [f"**{name_of(run)}.** {reason}" for run in SERIES if (reason := series_lacks(study, run))]
    about = ["What the rules with a Neumann series lack:"] if reasons else []
    return [f"{text} {links.get('budget', '')}".strip(), compact_table(headers, rows), *about, *reasons]


def earlier_section(earlier: Study) -> list[str]:
    """Every run of the shorter trainings."""
    if not earlier.records:
        return []
    headers = ["run", "what is special", "N", "iterations", "training, s", "PF6s at N", "at 4 N", "PF9s at N", "at 4 N"]
    rows = []
    for run in earlier.runs:
        records = earlier[run]
        first = records[0]
        seconds = _mean(r.seconds.get("training", math.nan) for r in records)
        rows.append(
            [run, first.label or "-", first.steps or "-", first.iterations, f"{seconds:,.0f}"]
            + [seeds_cell([r.f1(spec, m) for r in records]) for spec in ("PF6s", "PF9s") for m in (1, 4)]
        )
    folder = EARLIER.folder
    text = (
        f"Shorter trainings, with {EARLIER.iterations:,} iterations where nothing else is said: BPTT and C-RBP as in "
        "the paper, and fixed-point rules in other settings (N\nsteps, plain or Anderson's, forward, terms of the "
        "Neumann series backward, gates that start half open: `CELL.TIMESCALE` 2; another weight of\nthe Lipschitz "
        f"penalty, or the contraction penalty in its place). Verdicts: [summary.json]({folder}/summary.json); figures: "
        f"[recipes]({folder}/figures/recipes.png),\n[long runs]({folder}/figures/long_runs.png); the checkpoints on "
        f"new stimuli: `{STUDY_COMMAND} --scale small_1000 --check 7`."
    )
    return ["## After 1,000 iterations", text, compact_table(headers, rows)]


def _times(multiple: int) -> str:
    return "N" if multiple == 1 else f"{multiple} N"


def _mean(values: Iterable[float]) -> float:
    found = [*values]
    return sum(found) / len(found)


def learning_rates_section(study: Study) -> list[str]:
    better = better_rates(study)
    rows = []
    for config in dict.fromkeys(run.config for run in RUNS.values()):
        if config in better:
            losses = [figure_cell(pilot_loss(study, config, rate), 5) for rate in RATES]
            rows.append([config, *losses, f"{better[config] * SMALL.learning_rate:g}"])
    if not rows:
        return ["Not run."]
    rates = [f"loss at {rate * SMALL.learning_rate:g}" for rate in RATES]
    text = (
        f"Two pilots a config, of {round(PILOT * SMALL.iterations)} iterations: the training loss, mean over the last "
        "sixth of them, decides; of\nlosses within 1% of each other the greater rate is taken."
    )
    return [text, compact_table(["config", *rates, "chosen"], rows)]
