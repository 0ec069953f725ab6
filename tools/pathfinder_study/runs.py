"""The runs of the Pathfinder study: a table of configs and what is set beside them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """What one size of the study shares.

    folder: of its results, relative to the repository.
    prefix: of its configs, before the name of a run.
    spec: trained on; specs: tested on, with the number of test stimuli.
    iterations: of training; warmup: share of them.
    learning_rate: that of the scale's configs.
    options: config keys and values for every run.
    long_stimuli: test stimuli that are followed to 16 N.
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
    long_stimuli: int
    test_seed: int | None


SCALES = {
    "small": Scale(
        folder="tools/pathfinder_study/results/pathfinder_small",
        prefix="configs/pathfinder/PF6s_",
        spec="PF6s",
        specs={"PF6s": 512, "PF9s": 256, "PF12s": 256},
        iterations=1000,
        warmup=0.2,
        learning_rate=0.005,
        options=("SOLVER.CHECKPOINT_PERIOD", 100, "DATALOADER.NUM_WORKERS", 0),
        long_stimuli=64,
        test_seed=1,
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
        long_stimuli=512,
        test_seed=None,
    ),
}


@dataclass(frozen=True)
class Run:
    """One row: a config, options on top of the scale's, and the seeds it is run with where nothing else is asked for.

    training: over the scale's iterations. rate: over the scale's learning rate; None: that of the config.
    label: in the ablation table; None: not of the ablation.
    """

    config: str
    options: tuple = ()
    seeds: tuple[int, ...] = (0,)
    training: float = 1.0
    rate: float | None = None
    label: str | None = None

    def all_options(self, scale: Scale) -> list:
        """Config keys and values on top of the config's at a scale."""
        iterations = round(self.training * scale.iterations)
        warmup = round(scale.warmup * iterations)
        options = [*scale.options, "SOLVER.MAX_ITER", iterations, "SOLVER.WARMUP_ITERS", warmup]
        if self.rate:
            options += ["SOLVER.BASE_LR", self.rate * scale.learning_rate]
        return [*options, *self.options]


THREE = (0, 1, 2)


# Where a key of the ablation belongs in MODEL.RECURRENCE.
_NODES = {
    "TIMESCALE": "CELL", "NAME": "SOLVER", "MAX_STEPS": "SOLVER", "TERMS": "NEUMANN", "PENALTY": "PENALTY",
    "WEIGHT": "PENALTY", "BOUND": "PENALTY", "POWER_ITERATIONS": "PENALTY",
}  # fmt: skip
ANDERSON = {"NAME": "Anderson", "MAX_STEPS": 8, "TERMS": 6}
CONTRACTION = {"PENALTY": "Contraction", "BOUND": 0.7}
STRONGER = CONTRACTION | {"BOUND": 0.5}


def _recurrence(**keys) -> tuple:
    """Options of MODEL.RECURRENCE by the last part of their names, PENALTY being that penalty's NAME."""
    names = {key: f"MODEL.RECURRENCE.{_NODES[key]}.{'NAME' if key == 'PENALTY' else key}" for key in keys}
    return tuple(part for key, value in keys.items() for part in (names[key], value))


# The ablation's rows train for as many iterations as fit into the time of bptt's.
RUNS: dict[str, Run] = {
    "hgru_bptt": Run("hgru_bptt", seeds=THREE),
    # The better of the two is what the ablation is held against.
    "hgru_bptt_lr": Run("hgru_bptt", rate=2, seeds=THREE, label="BPTT, learning rate 0.01"),
    "hgru_crbp": Run("hgru_crbp", seeds=THREE),
    "hgru_rbp": Run("hgru_rbp", seeds=THREE),
    "hgru_cbptt": Run("hgru_cbptt", seeds=THREE),
    "hgru_tbptt": Run("hgru_tbptt"),
    "hgru_bptt_every_step": Run("hgru_bptt_every_step"),
    "hgru_deq": Run("hgru_deq"),
    "convlstm_bptt": Run("convlstm_bptt"),
    "convlstm_crbp": Run("convlstm_crbp"),
    "ff6": Run("ff6"),
    "ff2": Run("ff6", ("MODEL.CONTOUR.NUM_LAYERS", 2)),
    "hgru_crbp_k3": Run("hgru_crbp_k3"),
    "hgru_crbp_k5": Run("hgru_crbp_k5"),
    "recipe_timescale": Run(
        "hgru_crbp", _recurrence(TIMESCALE=2), training=0.5, label="plain 12, 15 terms, half-open gates"
    ),
    "recipe_anderson": Run(
        "hgru_crbp",
        _recurrence(TIMESCALE=2, **ANDERSON),
        training=0.7,
        label="Anderson 8, 6 terms, half-open gates",
    ),
    "recipe_heavy": Run(
        "hgru_crbp",
        _recurrence(TIMESCALE=2, WEIGHT=3000.0, **ANDERSON),
        training=0.7,
        label="Anderson 8, 6 terms, half-open gates, weight 3000",
    ),
    "recipe_contraction": Run(
        "hgru_crbp",
        _recurrence(TIMESCALE=2, **ANDERSON, **CONTRACTION),
        training=0.7,
        label="Anderson 8, 6 terms, half-open gates, contraction 0.7",
    ),
    "recipe_contraction_chronos": Run(
        "hgru_crbp",
        _recurrence(**ANDERSON, **CONTRACTION),
        training=0.7,
        label="Anderson 8, 6 terms, contraction 0.7",
    ),
    "recipe_contraction_random": Run(
        "hgru_crbp",
        _recurrence(TIMESCALE=2, **ANDERSON, **CONTRACTION, POWER_ITERATIONS=0),
        training=0.75,
        label="Anderson 8, 6 terms, half-open gates, contraction 0.7 of a random vector",
    ),
    "recipe_contraction_plain": Run(
        "hgru_crbp",
        _recurrence(TIMESCALE=2, TERMS=8, **STRONGER),
        training=0.63,
        label="plain 12, 8 terms, half-open gates, contraction 0.5",
    ),
    "recipe_contraction_short": Run(
        "hgru_crbp",
        _recurrence(TIMESCALE=2, POWER_ITERATIONS=1, **ANDERSON | {"MAX_STEPS": 6, "TERMS": 3}, **STRONGER),
        label="Anderson 6, 3 terms, half-open gates, contraction 0.5",
    ),
    "recipe_contraction_lr": Run(
        "hgru_crbp_contracting",
        training=0.8,
        seeds=THREE,
        label="Anderson 6, 3 terms, half-open gates, contraction 0.5, learning rate 0.01",
    ),
    # Three times the training of the two that the ablation sets against one another.
    "long_bptt_lr": Run("hgru_bptt", training=3, rate=2, label="BPTT, learning rate 0.01"),
    "long_contracting": Run(
        "hgru_crbp_contracting",
        training=2.4,
        label="Anderson 6, 3 terms, half-open gates, contraction 0.5, learning rate 0.01",
    ),
}
