"""The runs of the Pathfinder study: a table of configs and what is set beside them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """What one size of the study shares.

    folder: of its results, relative to the repository.
    prefix: of its configs, before the name of a run.
    spec: trained on; specs: tested on, with the number of test stimuli.
    iterations: of training; warmup: fraction of them.
    learning_rate: that of the scale's configs.
    options: config keys and values for every run.
    test_seed: of the test stimuli, which nothing is tuned on; None: of the registered validation set.
    """

    folder: str
    prefix: str
    spec: str
    specs: dict[str, int]
    iterations: int
    warmup: float
    learning_rate: float
    options: tuple
    test_seed: int | None


SCALES = {
    "small": Scale(
        folder="tools/pathfinder_study/results/pathfinder_small",
        prefix="configs/pathfinder/PF6s_",
        spec="PF6s",
        specs={"PF6s": 512, "PF9s": 256, "PF12s": 256},
        iterations=4000,
        warmup=0.2,
        learning_rate=0.005,
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
        options=("SOLVER.CHECKPOINT_PERIOD", 1000),
        test_seed=None,
    ),
}


@dataclass(frozen=True)
class Run:
    """One row: a config, options on top of the scale's, and the seeds it is run with where nothing else is asked for.

    training: over the scale's iterations. rate: over the scale's learning rate; None: that of the config.
    tested: whether the trained model is tested and kept; a pilot is not.
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
        if self.rate:
            options += ["SOLVER.BASE_LR", self.rate * scale.learning_rate]
        return [*options, *self.options]


THREE = (0, 1, 2)
# Of a pilot, over the scale's iterations, and the learning rates that are tried, over the scale's.
PILOT, RATES = 0.15, (1, 2)
# The better rate of a config's two pilots: the lower mean loss over the last sixth of their iterations. Configs
# without a row are pilots' own: none of theirs has run.
BETTER_RATE = {}


def _pilots(*configs: str) -> dict[str, Run]:
    return {
        f"pilot_{config}_{rate}": Run(config, training=PILOT, rate=rate, tested=False)
        for config in configs
        for rate in RATES
    }


PILOTED = (
    "hgru_progressive", "hgru_bptt", "hgru_crbp_contracting", "hgru_crbp", "hgru_crbp_random", "ff6", "hgru_rbp",
    "hgru_tbptt", "hgru_cbptt", "hgru_bptt_every_step", "hgru_deq", "convlstm_bptt", "convlstm_progressive",
    "convlstm_crbp",
)  # fmt: skip
PILOTS: dict[str, Run] = _pilots(*PILOTED)
RUNS: dict[str, Run] = dict(PILOTS)
