"""The panoptic models on the harder toy scenes: quality of every rule after each step, with what it costs.

N: steps trained with, those that are evaluated.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy import ndarray

from .figure_style import Drawing, Style, curve_style, draw_band, legend_below, over_seeds, panels
from .ledger import seeds_cell
from .panoptic_results import RESULTS, SIDE_BY_SIDE, read_results, read_steps, trained_steps
from .rule_tables import compact_table

HARDER = "panoptic_hard"
FOLDER = RESULTS / HARDER
COSTS, PICTURES = FOLDER / "costs.json", FOLDER / SIDE_BY_SIDE
BASELINE, BEST = "baseline", "contracting"
RULES: dict[str, Style] = {
    BASELINE: ("feedforward", "#777777", (0, (1, 1)), ""),
    "bptt": ("BPTT", "#D55E00", "--", "s"),
    "crbp": ("C-RBP", "#000000", "-", "o"),
    "contracting": ("C-RBP, contracting", "#009E73", (0, (6, 2)), "h"),
    "progressive": ("progressive", "#0072B2", "-", "*"),
}
SEEDS = (0, 1, 2)
# Steps beside N that the table shows; the figure has all.
SHOWN = (1, 10, 20, 30)
# PQ that a rule may lose from N to the last of these and be called flat.
FLAT = 0.5
THINGS, ALL = "PQ things", "PQ"
MIB = 2**20


@dataclass(frozen=True)
class HarderRun:
    """quality: in percent by title, at N. steps: columns of quality_per_step.csv; None of a head without steps."""

    quality: Mapping[str, float]
    steps: Mapping[str, ndarray] | None
    machine: str


@dataclass(frozen=True)
class RuleCost:
    """parameters: of the model. peak: bytes of the tensors alive at most in a training step."""

    parameters: int
    peak: int


Runs = Mapping[str, Sequence[HarderRun]]


def kept(rule: str, seed: int, root: Path) -> Path:
    """Folder of what is kept of a run."""
    return root / FOLDER / f"{rule}_s{seed}"


def config_of(rule: str) -> str:
    """Config of a rule's runs, relative to the repository."""
    return f"configs/quick/panoptic_R18_{rule}_hard.yaml"


def load_harder_runs(root: Path) -> dict[str, list[HarderRun]]:
    """What is kept of the runs, of every rule by seed.

    Raises:
        ValueError: a broken file.
    """
    return {rule: [run for seed in SEEDS if (run := _load(kept(rule, seed, root)))] for rule in RULES}


def _load(folder: Path) -> HarderRun | None:
    found = read_results(folder)
    if found is None:
        return None
    quality, machine = found
    path = folder / "quality_per_step.csv"
    return HarderRun(quality, read_steps(path) if path.exists() else None, machine)


def load_costs(root: Path) -> dict[str, RuleCost]:
    """What `panoptic_costs` has measured, by rule.

    Raises:
        ValueError: the file is broken.
    """
    path = root / COSTS
    if not path.exists():
        return {}
    try:
        return {rule: RuleCost(**values) for rule, values in json.loads(path.read_text())["costs"].items()}
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} holds no costs ({error!r}); delete it, and measure again") from error


def harder_section(root: Path, link: str) -> list[str]:
    """Markdown: the table, what it says, and the figure's link.

    Args:
        link: to the figure, or "".
    """
    runs = load_harder_runs(root)
    machines = {run.machine for mine in runs.values() for run in mine}
    if not machines:
        return ["Not run: `python -m tools.pathfinder_study.panoptic_runs`."]
    text = (
        "Toy scenes with more occlusion and thinner shapes, 50 unseen ones, R-18 from random initialisation; percent, "
        "means over seeds with the least and the greatest. Memory is that of the tensors alive at most in a training "
        "step of the whole model. By `python -m tools.pathfinder_study.panoptic_runs` on "
        f"{'; and on '.join(sorted(machines))}."
    )
    parts = [text, compact_table(*harder_table(runs, root)), *_findings(runs)]
    return [*parts, f"PQ after each of 30 steps: {link}."] if link else parts


def harder_table(runs: Runs, root: Path) -> tuple[list[str], list[list[str]]]:
    """Headers and rows, one a rule."""
    costs = load_costs(root)
    headers = ["mask head", "seeds", "N", "parameters, M", "memory, MiB", "PQ at N", "PQ things at N",
               *(f"PQ at t = {t}" for t in SHOWN)]  # fmt: skip
    rows: list[list[str]] = []
    for rule, (name, *_) in RULES.items():
        mine, cost, steps = runs[rule], costs.get(rule), steps_of(rule, root)
        rows.append([
            name, str(len(mine) or "-"), str(steps or "-"), f"{cost.parameters / 1e6:.2f}" if cost else "-",
            f"{cost.peak / MIB:.0f}" if cost else "-", *(_cell([run.quality[key] for run in mine])
            for key in (ALL, THINGS)), *(_cell(_at(mine, t)) for t in SHOWN),
        ])  # fmt: skip
    return headers, rows


def steps_of(rule: str, root: Path) -> int | None:
    """N of a rule's config; None of the feedforward head."""
    return None if rule == BASELINE else trained_steps(config_of(rule), root)


def _at(runs: Sequence[HarderRun], t: int) -> list[float]:
    return [float(run.steps["PQ"][run.steps["t"] == t][0]) for run in runs if run.steps and t in run.steps["t"]]


def _cell(values: Sequence[float]) -> str:
    return seeds_cell(values, digits=1, counted=False)


def _findings(runs: Runs) -> list[str]:
    """Whether recurrence gains more than the seeds differ, and which rules are flat to the last of SHOWN."""
    by_rule = {rule: mine for rule, mine in runs.items() if mine}
    baseline = [run.quality[THINGS] for run in by_rule.pop(BASELINE, ())]
    if not baseline or not by_rule:
        return []
    gains, losses, flat = [], [], []
    reference = _mean_quality(by_rule.get("crbp", ()))
    for rule, mine in by_rule.items():
        name, values = RULES[rule][0], [run.quality[THINGS] for run in mine]
        gain = np.mean(values) - np.mean(baseline)
        gains.append(f"{name} {gain:+.1f}, {_beside_spread(gain, values, baseline)}")
        if last := _at(mine, SHOWN[-1]):
            lost = _mean_quality(mine) - np.mean(last)
            # Without the sign of a zero.
            losses.append(f"{name} {round(lost, 1) + 0.0:.1f}")
            if lost <= FLAT and _mean_quality(mine) >= reference:
                flat.append(f"{name}, `tools/train_net.py --config-file {config_of(rule)}`")
    return [
        f"PQ things above the feedforward head's, means over seeds: {'; '.join(gains)}.",
        f"PQ lost from N to {SHOWN[-1]} steps: {', '.join(losses) or '-'}. With at most {FLAT} lost, and at N no less "
        f"than C-RBP: {'; '.join(flat) or 'none'}.",
    ]


def _mean_quality(runs: Sequence[HarderRun]) -> float:
    """PQ at N; nan of no runs."""
    return float(np.mean([run.quality[ALL] for run in runs])) if runs else math.nan


def _beside_spread(gain: float, *groups: Sequence[float]) -> str:
    if min(map(len, groups)) < 2:
        return "one seed, which has no spread"
    spread = max(map(np.ptp, groups))
    return f"{'more' if gain > spread else 'not more'} than the seeds' spread of {spread:.1f}"


def draw_harder_steps(root: Path) -> Drawing | None:
    """PQ and PQ things after each step, mean over seeds with their range; None where no run has steps."""
    runs = load_harder_runs(root)
    if not any(run.steps for mine in runs.values() for run in mine):
        return None
    figure, axes = panels(1, 2)
    rows: list[list[object]] = []
    for axis, (column, title) in zip(axes.flat, (("PQ", ALL), ("PQ_th", THINGS)), strict=True):
        axis.set(xlabel="steps", ylabel=f"{title}, %")
        for rule, mine in runs.items():
            steps = [run.steps for run in mine if run.steps]
            if rule == BASELINE and mine:
                axis.axhline(np.mean([run.quality[title] for run in mine]), **curve_style(RULES[rule]))
            elif steps:
                t, values = steps[0]["t"], over_seeds(steps, lambda part, column=column: part[column])
                draw_band(axis, t, values, RULES[rule])
                rows += [[RULES[rule][0], title, *point] for point in zip(t, *values, strict=True)]
    legend_below(figure, axes.flat[0])
    return Drawing(figure, ["rule", "figure", "t", "mean", "least", "greatest"], rows)
