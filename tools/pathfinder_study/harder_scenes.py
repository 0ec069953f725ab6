"""The panoptic models on the harder toy scenes: quality of every rule after each step, compared seed by seed.

N: steps trained with, at which models are evaluated.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy import ndarray

from .figure_style import Drawing, Style, compact_table, curve_style, draw_band, legend_below, over_seeds, panels
from .panoptic_results import RESULTS, SIDE_BY_SIDE, read_results, read_steps, trained_steps
from .predicates import Spread, spread_cell, spread_of

HARDER = "panoptic_hard"
PICTURES = RESULTS / HARDER / SIDE_BY_SIDE
BASELINE, BEST = "baseline", "contracting"
RULES: dict[str, Style] = {
    BASELINE: ("feedforward", "#777777", (0, (1, 1)), ""),
    "bptt": ("BPTT", "#D55E00", "--", "s"),
    "crbp": ("C-RBP", "#000000", "-", "o"),
    "contracting": ("C-RBP, contracting", "#009E73", (0, (6, 2)), "h"),
    "progressive": ("progressive", "#0072B2", "-", "*"),
}
# Steps besides N that the table shows; the figure has all.
SHOWN = (1, 10, 20, 30)
THINGS, ALL = "PQ things", "PQ"
# 97.5% quantiles of Student's t by degrees of freedom.
T_QUANTILE = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764}


@dataclass(frozen=True)
class Protocol:
    """One way of testing. folder: results, relative to the repository; scenes: number of test scenes."""

    folder: Path
    scenes: int
    seeds: tuple[int, ...]


# The second one was used before, and is shown until the first one has runs of two models.
PROTOCOLS = (
    Protocol(RESULTS / "panoptic_hard_400", 400, (0, 1, 2, 3, 4)),
    Protocol(RESULTS / HARDER, 50, (0, 1, 2)),
)


@dataclass(frozen=True)
class HarderRun:
    """quality: percent by title, at N. steps: columns of quality_per_step.csv; None for a head without steps."""

    quality: Mapping[str, float]
    steps: Mapping[str, ndarray] | None


@dataclass(frozen=True)
class Gain:
    """Paired difference over seeds with its 95% interval."""

    spread: Spread
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.spread.mean:+.1f} ({self.low:+.1f} to {self.high:+.1f})"


def paired_gain(first: Mapping[int, float], second: Mapping[int, float]) -> Gain | None:
    """second - first over the seeds that both have; None for less than two."""
    differences = np.array([second[seed] - first[seed] for seed in sorted(first.keys() & second.keys())])
    if len(differences) < 2:
        return None
    half = float(T_QUANTILE[len(differences) - 1] * differences.std(ddof=1) / math.sqrt(len(differences)))
    spread = spread_of(differences.tolist())
    return Gain(spread, spread.mean - half, spread.mean + half)


@dataclass(frozen=True)
class Panoptic:
    """The runs of a protocol: rule -> seed -> run."""

    protocol: Protocol
    runs: Mapping[str, Mapping[int, HarderRun]]

    def gain(self, rule: str, title: str = THINGS) -> Gain | None:
        """Paired difference to the feedforward head."""
        first, second = ({s: run.quality[title] for s, run in self.runs[name].items()} for name in (BASELINE, rule))
        return paired_gain(first, second)

    def complete(self, *rules: str) -> bool:
        """True if the new protocol has all seeds of the rules."""
        seeds = set(self.protocol.seeds)
        return self.protocol is PROTOCOLS[0] and all(self.runs[rule].keys() == seeds for rule in rules)


def kept(rule: str, seed: int, root: Path, protocol: Protocol = PROTOCOLS[0]) -> Path:
    """Results folder of a run."""
    return root / protocol.folder / f"{rule}_s{seed}"


def config_of(rule: str) -> str:
    """Config of a rule's runs, relative to the repository."""
    return f"configs/quick/panoptic_R18_{rule}_hard.yaml"


def load_panoptic(root: Path) -> Panoptic:
    """The runs of the first of PROTOCOLS that compares two models, else of the last one.

    Raises:
        ValueError: a broken file.
    """
    for protocol in PROTOCOLS:
        runs = {
            rule: {seed: run for seed in protocol.seeds if (run := _load(kept(rule, seed, root, protocol)))}
            for rule in RULES
        }
        panoptic = Panoptic(protocol, runs)
        if any(panoptic.gain(rule) for rule in RULES if rule != BASELINE):
            break
    return panoptic


def _load(folder: Path) -> HarderRun | None:
    found = read_results(folder)
    if found is None:
        return None
    quality, _ = found
    path = folder / "quality_per_step.csv"
    return HarderRun(quality, read_steps(path) if path.exists() else None)


def harder_section(root: Path, link: str) -> list[str]:
    """Markdown paragraphs: the protocol, the table, and the figure's link unless it is ""."""
    panoptic = load_panoptic(root)
    command = "`python -m tools.pathfinder_study.panoptic_runs`"
    if not any(panoptic.runs.values()):
        return [f"Not run: {command}."]
    text = (
        f"Toy scenes with more occlusion and thinner shapes, {panoptic.protocol.scenes} unseen ones; R-18 from random "
        "weights. Percent, means over seeds with minimum and maximum; gain: mean paired difference in PQ things to the "
        "feedforward head with its 95% interval."
    )
    if panoptic.protocol is not PROTOCOLS[0]:
        text += (
            f" These are earlier runs of {len(panoptic.protocol.seeds)} seeds; {command} makes those of five seeds on "
            "400 scenes, which decide the claim."
        )
    more = f" PQ after each of 30 steps: {link}." if link else ""
    return [text + more, compact_table(*harder_table(panoptic, root))]


def harder_table(panoptic: Panoptic, root: Path) -> tuple[list[str], list[list[str]]]:
    """Headers and rows, one a rule."""
    headers = ["mask head", "seeds", "N", "PQ at N", "PQ things at N", "gain",
               *(f"PQ at t = {t}" for t in SHOWN)]  # fmt: skip
    rows = []
    for rule, (name, *_) in RULES.items():
        if not panoptic.runs[rule]:
            continue
        mine, steps = [*panoptic.runs[rule].values()], steps_of(rule, root)
        gain = panoptic.gain(rule) if rule != BASELINE else None
        rows.append([
            name, str(len(mine) or "-"), str(steps or "-"),
            *(_cell([run.quality[key] for run in mine]) for key in (ALL, THINGS)), str(gain or "-"),
            *(_cell(_at(mine, t)) for t in SHOWN),
        ])  # fmt: skip
    return headers, rows


def steps_of(rule: str, root: Path) -> int | None:
    """N of a rule's config; None for the feedforward head."""
    return None if rule == BASELINE else trained_steps(config_of(rule), root)


def _at(runs: Sequence[HarderRun], t: int) -> list[float]:
    return [float(run.steps["PQ"][run.steps["t"] == t][0]) for run in runs if run.steps and t in run.steps["t"]]


def _cell(values: Sequence[float]) -> str:
    return spread_cell(spread_of(values), digits=1, counted=False)


def draw_harder_steps(root: Path) -> Drawing | None:
    """PQ and PQ things after each step, mean over seeds with their range; None if no run has steps."""
    panoptic = load_panoptic(root)
    if not any(run.steps for mine in panoptic.runs.values() for run in mine.values()):
        return None
    figure, axes = panels(1, 2)
    rows: list[list[object]] = []
    for axis, (column, title) in zip(axes.flat, (("PQ", ALL), ("PQ_th", THINGS)), strict=True):
        axis.set(xlabel="steps", ylabel=f"{title}, %")
        for rule, mine in panoptic.runs.items():
            steps = [run.steps for run in mine.values() if run.steps]
            if rule == BASELINE and mine:
                axis.axhline(np.mean([run.quality[title] for run in mine.values()]), **curve_style(RULES[rule]))
            elif steps:
                t, values = steps[0]["t"], over_seeds(steps, lambda part, column=column: part[column])
                draw_band(axis, t, values, RULES[rule])
                rows += [[RULES[rule][0], title, *point] for point in zip(t, *values, strict=True)]
    legend_below(figure, axes.flat[0])
    return Drawing(figure, ["rule", "metric", "t", "mean", "minimum", "maximum"], rows)
