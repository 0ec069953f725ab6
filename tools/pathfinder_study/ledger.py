"""results/VERDICTS.md and its tables: ledger, all measures of the rules, learning rates, costs at full size.

N: steps trained with.
"""

import csv
import io
import math
import re
from collections.abc import Sequence
from pathlib import Path

from crbp_d2.utils.files import write_text
from tools.page import wrapped

from .figure_style import STYLES, compact_table, name_of
from .figures import FIGURES
from .panoptic_results import RESULTS, TOY, TOY_BASELINE, TWO_IMAGES, kept_pictures, read_results
from .paper import PANOPTIC, PANOPTIC_BY_STEP, PANOPTIC_PARTS, PATHFINDER_F1, PATHFINDER_F1_FAR, TRAINING_TIME_RATIO
from .predicates import TRAINED, spread_cell, spread_of, times
from .records import Record, Study
from .runs import PILOT, RATES, RUNS, SCALES, better_rates, pilot_loss
from .scales import cost_factor, ours, papers

VERDICTS = RESULTS / "VERDICTS.md"
SMALL = SCALES["small"]
MULTIPLES = (1, 2, 4, 8, 16)  # of N, in rules.csv


def verdicts_page(study: Study, written: Sequence[str], figures: str, root: Path) -> str:
    """The whole page; `written`, `figures`: see results_page. Links are relative to the page."""
    folder = Path(figures).relative_to(RESULTS)
    links = [f"[{title}]({folder}/{stem}.png)" for stem, (_, title, _) in FIGURES.items() if stem in written]
    machines = sorted({re.sub(r"; \d{4}-\d\d-\d\d", "", record.machine) for record in study.records})
    sections = [
        "# Ledger and measures",
        "Details of [RESULTS](../../../docs/RESULTS.md); F1 from N to 16 N: [rules.csv](rules.csv).",
        *([f"Measured on {'; and on '.join(machines)}."] if machines else []),
        *([f"Figures: {', '.join(links)}."] if links else []),
        "## Pathfinder, the paper's numbers",
        compact_table(["", "paper", "ours", "run"], pathfinder_rows(study)),
        "## COCO val2017, the paper's numbers",
        "None has been measured here; each by `tools/train_net.py --config-file configs/CONFIG.yaml --num-gpus 8`.",
        compact_table(["config", "PQ", "memory, MB a GPU"], panoptic_rows()),
        _by_step(),
        "## Measures of every run",
        *measures_section(study),
        "## Learning rates",
        *learning_rates_section(study),
        "## Costs at the paper's scale",
        *costs_section(study, root),
        "## Other panoptic models",
        "From random weights on a processor, in percent; the two images are also the training images.",
        compact_table(["model", "ours", "command", "machine"], own_panoptic_rows(root)),
        *_pictures(root),
    ]
    return wrapped("\n\n".join(sections)) + "\n"


def pathfinder_rows(study: Study) -> list[list[str]]:
    """F1 at N, far past N, and on longer contours that were trained on."""

    def f1(run: str, multiple: int) -> str:
        return spread_cell(spread_of([record.f1(TRAINED, multiple) for record in study[run]]))

    rows = [[f"F1 at N, {_model(run)}", f"{near:.4f}", f1(run, 1), run] for run, (near, *_) in PATHFINDER_F1.items()]
    far = PATHFINDER_F1_FAR.items()
    rows += [[f"F1 at t = 40 (ours: 4 N), {_model(run)}", f"{value:.2f}", f1(run, 4), run] for run, value in far]
    return rows + [
        [f"F1 after training on PF20 / PF25, {_model(run)}", f"{middle:.4f} / {long:.4f}", "-", run]
        for run, (_, middle, long) in PATHFINDER_F1.items()
        if middle is not None
    ]


def _model(run: str) -> str:
    return f"hGRU, {name_of(run)}" if run.startswith("hgru_") else name_of(run)


def panoptic_rows() -> list[list[str]]:
    rows = []
    for config, (quality, _, memory) in PANOPTIC.items():
        parts = PANOPTIC_PARTS.get(config)
        more = f" (things {parts[0]:.2f}, stuff {parts[1]:.2f})" if parts else ""
        rows.append([config, f"{quality:.2f}{more}", str(memory or "-")])
    return rows


def _by_step() -> str:
    steps = ", ".join(f"{PANOPTIC_BY_STEP[t]:g} (t = {t})" for t in (9, 10, 12, 15, 20, 23))
    return (
        f"PQ of panoptic_R50_crbp by step: {steps}. C-RBP with 20 steps takes about {TRAINING_TIME_RATIO:g} times the "
        "training time of the feedforward FPN."
    )


def measures_section(study: Study) -> list[str]:
    """Training and stability of every tested run."""
    headers = ["rule", "seeds", "N", "iterations", "training, s", "F1 at N", "F1 at 4 N", "F1 at 16 N"]
    headers += ["penalty at N", "change of the state at 16 N", "spectral radius at 4 N"]
    rows = []
    for run in [run for run in STYLES if study[run]]:
        first = study.first(run)
        f1 = [spread_cell(spread_of([r.f1(TRAINED, m) for r in study[run]]), counted=False) for m in (1, 4, 16)]
        rows.append(
            [name_of(run), len(study[run]), first.steps or "-", first.iterations, _seconds(study, run), *f1]
            + [number_cell(study.mean(run, lambda r: r.value("penalty")), 2)]
            + [number_cell(study.mean(run, lambda r: r.last_residual), 2)]
            + [number_cell(study.mean(run, lambda r: r.value("spectral_radius")), 4)]
        )
    if not rows:
        return ["Not run."]
    text = "Means over seeds; training in processor seconds of one thread, with another run on the other core."
    return [text, compact_table(headers, rows)]


def _seconds(study: Study, run: str) -> str:
    seconds = study.mean(run, lambda record: record.seconds.get("training", math.nan))
    return f"{seconds:,.0f}" if math.isfinite(seconds) else "-"


def number_cell(value: float, digits: int) -> str:
    return f"{value:.{digits}g}" if math.isfinite(value) else "-"


def learning_rates_section(study: Study) -> list[str]:
    better = better_rates(study)
    rows = [
        [config, *(f"{pilot_loss(study, config, rate):.5f}" for rate in RATES), f"{rate * SMALL.learning_rate:g}"]
        for config in dict.fromkeys(run.config for run in RUNS.values())
        if (rate := better.get(config))
    ]
    if not rows:
        return ["Not run."]
    rates = [f"loss at {rate * SMALL.learning_rate:g}" for rate in RATES]
    text = (
        f"Two pilots a config, of {round(PILOT * SMALL.iterations)} iterations; the mean training loss of the last "
        "sixth decides, and of losses within 1% the higher rate is taken."
    )
    return [text, compact_table(["config", *rates, "chosen"], rows)]


def costs_section(study: Study, root: Path) -> list[str]:
    rows = []
    for run in [run for run in STYLES if study[run] and not run.startswith("pf9s_")]:
        record = study.first(run)
        seconds = record.seconds.get("iteration", math.nan)
        if math.isfinite(seconds):
            large = papers(record.config, root)
            factor = cost_factor(ours(record, study), large)
            hours = seconds * factor * large.iterations / 3600
            rows.append([run, f"{seconds:.3f}", f"{factor:.0f}", large.iterations, f"{hours:,.0f}"])
    if not rows:
        return ["Not run."]
    text = (
        "Extrapolated from one thread of the machine above. Assumed: time grows with images, pixels, squared channels "
        "and steps, and not with the kernel's extent. On a cluster: "
        "`python -m tools.pathfinder_study --scale paper --num-gpus 8`."
    )
    return [text, compact_table(["run", "s an iteration here", "factor", "iterations", "hours"], rows)]


def own_panoptic_rows(root: Path) -> list[list[str]]:
    """Toy scenes and two images: model, metrics, command, machine."""
    train = "tools/train_net.py --config-file configs/quick"
    runs = (
        (TOY, "toy scenes, 50 unseen ones, R-18, C-RBP 10 steps", "`make demo`"),
        (TOY_BASELINE, "the same scenes, four feedforward convolutions", f"`{train}/panoptic_R18_baseline_toy.yaml`"),
        (TWO_IMAGES, "two COCO images, R-50, C-RBP 20 steps", f"`{train}/panoptic_R50_crbp_overfit.yaml`"),
    )
    rows = []
    for folder, model, command in runs:
        values, place = read_results(root / RESULTS / folder) or ({}, "-")
        text = ", ".join(f"{name} {value:.2f}" for name, value in values.items())
        rows.append([model, text or "-", command, place])
    return rows


def _pictures(root: Path) -> list[str]:
    links = [f"[{name} {path.stem}]({path.relative_to(root / RESULTS).as_posix()})"
             for name in (TOY, "panoptic_hard") for path in kept_pictures(name, root)]  # fmt: skip
    return [f"Feedforward and recurrent head side by side: {', '.join(links)}."] if links else []


def rules_csv(study: Study) -> str:
    """F1 of every tested record at MULTIPLES of N on every spec, and its best t."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", "seed", "N", "iterations", "spec", *(f"F1 at {times(m)}" for m in MULTIPLES), "best F1"])
    for record in study.records:
        for spec in record.quality:
            head = [record.run, record.seed, record.steps or "", record.iterations, spec]
            writer.writerow([*head, *_cells(record, spec)])
    return text.getvalue()


def _cells(record: Record, spec: str) -> list[str]:
    values = [*(record.f1(spec, multiple) for multiple in MULTIPLES), record.best_f1(spec)]
    return [f"{value:.5f}" if math.isfinite(value) else "" for value in values]


def write_verdicts(study: Study, written: Sequence[str], figures: str, root: Path) -> None:
    write_text(root / VERDICTS, verdicts_page(study, written, figures, root))
    write_text(root / RESULTS / "rules.csv", rules_csv(study))
