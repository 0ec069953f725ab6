"""The runs of the Pathfinder study: a table of configs and the options on top of them, and the choice of rates."""

import math
from dataclasses import dataclass, replace

import numpy as np

from .records import Study


@dataclass(frozen=True)
class Scale:
    """The settings that all runs of one size have in common.

    folder: results folder, relative to the repository.
    prefix: path of the configs up to the name of a run.
    spec: contours trained on; specs: contours tested on, with the number of test stimuli.
    iterations: training iterations; warmup: fraction of them.
    learning_rate: the one in the configs; pilots: whether pilots choose each run's instead.
    options: config keys and values for every run.
    test_seed: seed of the test stimuli, on which nothing is tuned; None: the registered validation set.
    tolerance: allowed difference of a checkpoint's F1 on two samples of stimuli.
    """

    folder: str
    prefix: str
    spec: str
    specs: dict[str, int]
    iterations: int
    warmup: float
    learning_rate: float
    pilots: bool
    options: tuple
    test_seed: int | None
    tolerance: float = 0.02


SCALES = {
    "small": Scale(
        folder="tools/pathfinder_study/results/pathfinder_small",
        prefix="configs/pathfinder/PF6s_",
        spec="PF6s",
        specs={"PF6s": 512, "PF9s": 256, "PF12s": 256},
        iterations=4000,
        warmup=0.2,
        learning_rate=0.005,
        pilots=True,
        options=("SOLVER.CHECKPOINT_PERIOD", 200, "DATALOADER.NUM_WORKERS", 0),
        test_seed=41,
    ),
    "paper": Scale(
        folder="tools/pathfinder_study/results/pathfinder_paper",
        prefix="configs/pathfinder/PF14_",
        spec="PF14",
        specs={"PF14": 20_000, "PF20": 20_000, "PF25": 20_000},
        iterations=28125,
        warmup=0.0,
        learning_rate=0.001,
        pilots=False,
        options=("SOLVER.CHECKPOINT_PERIOD", 1000),
        test_seed=None,
    ),
}


@dataclass(frozen=True)
class Run:
    """One row: a config, options on top of the scale's, and the default seeds.

    training: multiple of the scale's iterations. rate: multiple of the scale's learning rate; None: pilots are missing.
    tested: whether the trained model is tested and kept; False for pilots.
    """

    config: str
    options: tuple = ()
    seeds: tuple[int, ...] = (0,)
    training: float = 1.0
    rate: float | None = None
    tested: bool = True

    def all_options(self, scale: Scale) -> list:
        """Config keys and values on top of the config's at a scale."""
        iterations = round(self.training * scale.iterations)
        warmup = round(scale.warmup * iterations)
        options = [*scale.options, "SOLVER.MAX_ITER", iterations, "SOLVER.WARMUP_ITERS", warmup]
        if self.rate and scale.pilots:
            options += ["SOLVER.BASE_LR", self.rate * scale.learning_rate]
        return [*options, *self.options]


THREE = (0, 1, 2)
# Multiples of the scale's iterations (of a pilot) and learning rate (those that are tried).
PILOT, RATES = 0.15, (1, 2)
# The last iterations of a pilot whose loss counts, as a fraction; losses within EQUAL of the lowest one tie, and of
# ties the higher rate wins, from which longer trainings gain more.
LAST, EQUAL = 1 / 6, 1.01
# The better of RATES for each config, see better_rates; without an entry the pilots are missing.
BETTER_RATE = {
    "hgru_progressive": 2,
    "hgru_bptt": 2,
    "hgru_crbp_contracting": 2,
    "hgru_crbp": 1,
    "hgru_crbp_random": 2,
    "ff6": 2,
    "convlstm_progressive": 2,
    "convlstm_bptt": 2,
    "hgru_cbptt": 2,
    "hgru_tbptt": 2,
    "hgru_bptt_every_step": 2,
    "hgru_rbp": 1,
    "hgru_deq": 2,
}
FAR = ("MODEL.RECURRENCE.RULE", "progressive_far")
MIXED = ("MODEL.RECURRENCE.RULE", "progressive_mixed")
RECORDED_8 = ("MODEL.RECURRENCE.TRUNCATION", 8)
RECORDED_10 = ("MODEL.RECURRENCE.TRUNCATION", 10)
ON_LONGER = ("DATASETS.TRAIN", "('pathfinder_PF9s_train',)", "DATASETS.TEST", "('pathfinder_PF9s_val',)")

# In order of importance: a row waits for those above it.
RUNS: dict[str, Run] = {
    "hgru_progressive": Run("hgru_progressive", seeds=THREE),
    "hgru_bptt": Run("hgru_bptt", seeds=THREE),
    # Added after the first seed of hgru_progressive, which lost 0.043 of its F1 to 16 N.
    "hgru_progressive_far": Run("hgru_progressive", FAR, seeds=THREE),
    # Added after the first seed of hgru_progressive_far, which lost nothing to 16 N, but had 0.011 less than BPTT at N:
    # four variants that may be within 0.005 of BPTT and still flat.
    "hgru_progressive_mixed": Run("hgru_progressive", MIXED, seeds=THREE),
    "hgru_progressive_far_8": Run("hgru_progressive", (*FAR, *RECORDED_8)),
    "hgru_progressive_far_10": Run("hgru_progressive", (*FAR, *RECORDED_10)),
    "hgru_progressive_far_long": Run("hgru_progressive", FAR, training=1.5),
    "hgru_crbp_contracting": Run("hgru_crbp_contracting", seeds=THREE),
    "hgru_crbp": Run("hgru_crbp", seeds=THREE),
    # In the pilots an iteration of progressive took 1.44 times the time of one of bptt.
    "hgru_progressive_time": Run("hgru_progressive", seeds=THREE, training=0.69),
    "hgru_progressive_far_time": Run("hgru_progressive", FAR, seeds=THREE, training=0.72),
    # Meant for BPTT's time, of which it took 0.62.
    "hgru_progressive_far_half": Run("hgru_progressive", FAR, training=0.5),
    "hgru_crbp_random": Run("hgru_crbp_random"),
    "ff6": Run("ff6", seeds=THREE),
    "ff2": Run("ff6", ("MODEL.CONTOUR.NUM_LAYERS", 2)),
    "hgru_rbp": Run("hgru_rbp", seeds=THREE),
    "hgru_cbptt": Run("hgru_cbptt", seeds=THREE),
    "hgru_tbptt": Run("hgru_tbptt", seeds=THREE),
    "hgru_bptt_every_step": Run("hgru_bptt_every_step", seeds=THREE),
    "hgru_deq": Run("hgru_deq", seeds=THREE),
    "convlstm_bptt": Run("convlstm_bptt"),
    "convlstm_progressive": Run("convlstm_progressive"),
    "convlstm_crbp": Run("convlstm_crbp"),
    "pf9s_progressive": Run("hgru_progressive", ON_LONGER),
    "pf9s_progressive_far": Run("hgru_progressive", (*FAR, *ON_LONGER)),
    "pf9s_bptt": Run("hgru_bptt", ON_LONGER),
    "pf9s_crbp_contracting": Run("hgru_crbp_contracting", ON_LONGER),
}
RUNS = {name: replace(run, rate=BETTER_RATE.get(run.config)) for name, run in RUNS.items()}
# Two a config, which choose its learning rate on training data only.
PILOTS = {
    f"pilot_{config}_{rate}": Run(config, training=PILOT, rate=rate, tested=False)
    for config in dict.fromkeys(run.config for run in RUNS.values())
    for rate in RATES
}
JOBS = PILOTS | RUNS


def pilot_loss(study: Study, config: str, rate: float) -> float:
    """Mean training loss over the LAST iterations of a pilot; nan without its record."""
    record = study.first(f"pilot_{config}_{rate}")
    if record is None or not record.curve:
        return math.nan
    last = record.curve["iteration"] > (1 - LAST) * record.iterations
    return float(np.mean(record.curve["loss"][last]))


def better_rates(study: Study) -> dict[str, float]:
    """The better of RATES for every config whose pilots have all run."""
    runs = [record.run for record in study.records if record.run.startswith("pilot_")]
    better: dict[str, float] = {}
    for config in {run.removeprefix("pilot_").rpartition("_")[0] for run in runs}:
        losses = {rate: pilot_loss(study, config, rate) for rate in RATES}
        if all(map(math.isfinite, losses.values())):
            better[config] = max(rate for rate, loss in losses.items() if loss <= EQUAL * min(losses.values()))
    return better
