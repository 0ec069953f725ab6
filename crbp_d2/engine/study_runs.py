"""The runs of the Pathfinder study: a table of configs and what is set beside them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """What one size of the study shares.

    folder: of its results, relative to the repository.
    prefix: of its configs, before the name of a run.
    spec: trained on; specs: tested on, with the number of test stimuli.
    options: config keys and values for every run.
    long_stimuli: test stimuli that are followed to 16 N.
    test_seed: of the test stimuli, which nothing is tuned on; None: of the registered validation set.
    """

    folder: str
    prefix: str
    spec: str
    specs: dict[str, int]
    options: tuple
    long_stimuli: int
    test_seed: int | None


SCALES = {
    "small": Scale(
        folder="results/pathfinder_small",
        prefix="configs/pathfinder/PF6s_",
        spec="PF6s",
        specs={"PF6s": 512, "PF9s": 256, "PF12s": 256},
        options=(
            "SOLVER.MAX_ITER", 1000, "SOLVER.WARMUP_ITERS", 200, "SOLVER.CHECKPOINT_PERIOD", 100,
            "DATALOADER.NUM_WORKERS", 0,
        ),
        long_stimuli=64,
        test_seed=1,
    ),
    "paper": Scale(
        folder="results/pathfinder_paper",
        prefix="configs/pathfinder/PF14_",
        spec="PF14",
        specs={"PF14": 20_000, "PF20": 20_000, "PF25": 20_000},
        options=("SOLVER.CHECKPOINT_PERIOD", 1000,),
        long_stimuli=512,
        test_seed=None,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One row: a config, options on top of the scale's, and the seeds it is run with where nothing else is asked for.

    label: in the ablation table; None: not of the ablation.
    """

    config: str
    options: tuple = ()
    seeds: tuple[int, ...] = (0,)
    label: str | None = None


THREE = (0, 1, 2)

RUNS: dict[str, Run] = {
    "hgru_bptt": Run("hgru_bptt", seeds=THREE),
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
}
