"""All figures of the study: their titles and captions, and writing those that have records."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from .figure_style import CONVLSTM, FEEDFORWARD, FIXED_POINT, MAIN, ON_LONGER, RANDOM_STARTS, UNROLLED, Drawing
from .predicates import LONGER
from .records import Study
from .score_figures import per_step
from .state_figures import state_space_maps, state_space_tests
from .training_figures import stability, training


def _per_step(runs: Sequence[str], **options) -> Callable[[Study], Drawing | None]:
    return partial(per_step, runs=runs, **options)


# stem -> drawing function, title, caption; in brackets the figure of the paper's supplement that it reproduces
FIGURES: dict[str, tuple[Callable[[Study], Drawing | None], str, str]] = {
    "quality_per_step": (
        _per_step(MAIN),
        "Quality over steps",
        "F1 over steps up to 16 N, in units of the N steps a rule was trained with. Marked: N, 4 N and 16 N. Bands: "
        "minimum and maximum over seeds. First panel: contours as in training.",
    ),
    "quality_per_step_random_starts": (
        _per_step((*RANDOM_STARTS, "hgru_bptt")),
        "Random starts",
        "The same for random starts up to N, up to 8 N, and four variants.",
    ),
    "quality_per_step_variants": (
        _per_step(UNROLLED),
        "Rules that unroll (S4)",
        "The same for BPTT, with the penalty, truncated, and with a loss on every step.",
    ),
    "quality_per_step_fixed_point": (
        _per_step(FIXED_POINT),
        "Fixed-point rules",
        "The same for the forms of C-RBP, RBP and DEQ.",
    ),
    "quality_per_step_convlstm": (
        _per_step((*CONVLSTM, *FEEDFORWARD)),
        "ConvLSTM and feedforward (S3)",
        "The same for the ConvLSTM, with the feedforward controls as levels.",
    ),
    "training": (
        training,
        "Training and penalty (S6, S7)",
        "Training loss, and metrics on fixed validation stimuli: F1 at N and at 4 N, relative change of the state in "
        "step N, Lipschitz penalty at N (bound 0.9, mean, before weighting), also of rules trained without it. Mean "
        "over seeds; values below 1e-6 are drawn there.",
    ),
    "longer_contours": (
        _per_step(MAIN, specs=LONGER, relative=False),
        "Generalization to longer contours (S8)",
        "F1 on contours longer than in training over steps. Marked: N, 4 N and 16 N.",
    ),
    "trained_on_longer": (
        _per_step(ON_LONGER),
        "Trained on longer contours",
        "F1 over steps of rules trained on PF9s.",
    ),
    "stability": (
        stability,
        "Stability",
        "Spectral radius of the Jacobian at the state after 4 N steps, one point a stimulus and seed; ratio of "
        "successive changes of the state and relative change of the state, medians over stimuli, seed 0.",
    ),
    "state_space": (
        state_space_maps,
        "State space",
        "States averaged over space, projected on the two leading components of the states up to N. The line follows "
        "one stimulus. Seed 0.",
    ),
    "state_space_tests": (
        state_space_tests,
        "Do the states stay?",
        "Distances of the states at N and at 4 N from the centroid of those at N, with the Kolmogorov-Smirnov test "
        "between the two and Cliff's delta; last panel: distance each state moves from N to 4 N, over the spread of "
        "the states up to N. Seed 0.",
    ),
}


def draw_figures(study: Study, folder: Path) -> list[str]:
    """Write every figure that has records as PNG and CSV, remove all others, and return the stems written."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for stem, (draw, _, _) in FIGURES.items():
        if drawing := draw(study):
            drawing.save(folder, stem)
            written.append(stem)
    for path in (*folder.glob("*.png"), *folder.glob("*.csv")):
        if path.stem not in written:
            path.unlink()
    return written
