"""RESULTS.md: written from the records alone.

N: steps trained with.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tools.page import wrapped

from .claims import Claim
from .comparisons import Outcome
from .figure_style import ON_LONGER, STYLES, name_of
from .harder_scenes import HARDER, harder_section
from .ledger import LONGER_NOTE, STUDY_COMMAND, Row, own_panoptic_rows, panoptic_rows, pathfinder_rows
from .panoptic_results import TOY, kept_pictures
from .records import Study
from .rule_tables import (
    budget_section,
    compact_table,
    earlier_section,
    figure_cell,
    learning_rates_section,
    table_with_notes,
)
from .scales import cost_factor, ours, papers
from .summary_lines import summary_lines
from .verdict_section import verdict_section

CLUSTER_COMMAND = "python -m tools.pathfinder_study --scale paper --num-gpus 8"


def results_page(
    study: Study,
    earlier: Study,
    outcomes: Sequence[tuple[Claim, Outcome]],
    written: Sequence[str],
    figures: str,
    root: Path,
) -> str:
    """The whole page.

    Args:
        earlier: the shorter trainings.
        written: stems of the figures there are.
        figures: their folder, relative to `root`.
    """
    links = {stem: f"[figure]({figures}/{stem}.png)" for stem in written}
    sections = [
        "# Results",
        summary_lines(study, earlier, outcomes),
        _introduction(study, str(Path(figures).parent)),
        "## Ledger",
        "The paper's figures are for 15x15 kernels, 25 channels and PF14; ours for the small scale described below, so "
        'the two columns\ncompare in kind, not in value. "-": not run. t counts steps, N those trained with.',
        *ledger_section([*pathfinder_rows(study, earlier), *panoptic_rows()], links),
        f"Note: {LONGER_NOTE}",
        "## Verdicts",
        *verdict_section(outcomes, links),
        "## Rules side by side",
        *budget_section(study, links),
        *earlier_section(earlier),
        "## Learning rates",
        *learning_rates_section(study),
        "## What differs from the paper",
        *_differences(study, root),
        "## The paper's scale",
        *_costs(study, root),
        "## Panoptic models of our own",
        "Not comparable with COCO val2017, nor the toy scenes with the two images: from random initialisation, in "
        "minutes on\na processor (in percent).",
        *table_with_notes(["what", "ours", "command", "machine"], own_panoptic_rows(root)),
        *([f"Quality per step of the toy model: {links['panoptic_toy']}."] if "panoptic_toy" in links else []),
        *_pictures("Toy scenes", TOY, root),
        "## Panoptic models on harder scenes",
        *harder_section(root, links.get(HARDER, "")),
        *_pictures("Harder scenes", HARDER, root),
    ]
    return wrapped(_seen_from_docs("\n\n".join(sections))) + "\n"


def _seen_from_docs(text: str) -> str:
    """Links relative to the repository as links of a page in docs/."""
    return re.sub(r"\]\((?!https?:|#)", "](../", text)


def _introduction(study: Study, folder: str) -> str:
    machines = sorted({record.machine for record in study.records})
    text = (
        f"Written by `{STUDY_COMMAND}` from the records in `{folder}/runs`. All of it with pictures:\n"
        f"[gallery.html]({folder}/gallery.html); for programs: [summary.json]({folder}/summary.json).\n"
        "Why some rules keep their quality: [ANALYSIS](docs/ANALYSIS.md)."
    )
    if machines:
        text += f"\n\nMeasured on {'; and on '.join(machines)}."
    return text


def ledger_section(rows: Sequence[Row], links: dict[str, str]) -> list[str]:
    headers = ["", "paper", "ours (small scale)", "figure", "command"]
    return table_with_notes(
        headers,
        [
            [r.quantity, r.paper, r.ours, links.get(r.figure, "-"), f"`{r.command}`" if " " in r.command else r.command]
            for r in rows
        ],
    )


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


def _pictures(what: str, name: str, root: Path) -> list[str]:
    links = [f"[{path.stem}]({path.relative_to(root).as_posix()})" for path in kept_pictures(name, root)]
    return [f"{what}, feedforward and recurrent side by side: {', '.join(links)}."] if links else []


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
        rows.append([run, figure_cell(seconds), f"{factor:.0f}", large.iterations, f"{hours:,.0f}"])
    command = f"On a cluster: `{CLUSTER_COMMAND}`; `--only` and `--seeds` choose runs."
    if not rows:
        return ["Not run.", command]
    text = (
        "Extrapolated to the paper's scale on the machine above, not measured. Assumed: time grows in proportion to "
        "the\nimages of a batch, their pixels, the square of the channels and the steps; the kernel's extent costs "
        "nothing, as\nlarge kernels go by Fourier transform."
    )
    return [text, compact_table(headers, rows), command]
