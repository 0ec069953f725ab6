"""All figures of the study: what each shows, and writing those there are records for."""

from collections.abc import Callable
from pathlib import Path

from .figure_style import Drawing
from .records import Study
from .score_figures import (
    generalization,
    long_runs,
    parameters,
    quality_per_step,
    quality_per_step_convlstm,
    recipes,
)
from .state_figures import state_space_maps, state_space_tests
from .training_figures import stability, training

# stem -> how it is drawn, title, caption
FIGURES: dict[str, tuple[Callable[[Study], Drawing | None], str, str]] = {
    "quality_per_step": (
        quality_per_step,
        "Quality over steps",
        "F1 over the number of steps, in units of the N steps a rule was trained with. Marked: N and 4 N. Bands: "
        "least and greatest seed. The first panel has contours as in training, the others longer ones.",
    ),
    "quality_per_step_convlstm": (
        quality_per_step_convlstm,
        "Quality over steps, ConvLSTM and feedforward",
        "The same for the ConvLSTM, with the feedforward controls as levels.",
    ),
    "generalization": (
        generalization,
        "Rules and contour lengths",
        "F1 of every rule on every contour length after N and after 4 N steps, mean over seeds. '-': not run.",
    ),
    "long_runs": (long_runs, "Long runs", "F1 up to 16 N steps, on fewer stimuli."),
    "training": (
        training,
        "Training",
        "Training loss, and what fixed validation stimuli give while training: F1 at N and at 4 N, the Lipschitz "
        "penalty (bound 0.9, mean, before weighting) and the relative change of the state in step N. Mean over seeds; "
        "values below 1e-6 are drawn there.",
    ),
    "stability": (
        stability,
        "Stability",
        "Spectral radius of the Jacobian at the state after 4 N steps, one point a stimulus and seed; ratio of "
        "successive changes of the state and relative change of the state along the run, medians over stimuli, seed 0.",
    ),
    "state_space": (
        state_space_maps,
        "State space",
        "States averaged over space, projected on the two leading components of the states up to N. Contours hold 50% "
        "and 90% of the states up to N (solid) and beyond (dashed). Seed 0.",
    ),
    "state_space_tests": (
        state_space_tests,
        "Do the states stay?",
        "Distances of the states at N and at 4 N from the centroid of those at N, with the Kolmogorov-Smirnov test "
        "between the two and Cliff's delta, seed 0; last panel: how far each stimulus's state moves from N to "
        "4 N, over the spread of the states up to N.",
    ),
    "parameters": (
        parameters,
        "Parameters",
        "F1 at N over the number of parameters: kernel sizes and feedforward controls.",
    ),
    "recipes": (
        recipes,
        "Fixed-point rules in other settings",
        "Fixed-point rules in other settings: F1 at N, 4 N and 8 N on the stimuli that are followed to 16 N (fewer "
        "than those of the table), and the time of training.",
    ),
}


def draw_figures(study: Study, folder: Path) -> list[str]:
    """Write every figure there are records for as PNG and CSV, remove the others, and return the stems written."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for stem, (draw, _, _) in FIGURES.items():
        if drawing := draw(study):
            drawing.save(folder, stem)
            written.append(stem)
        else:
            for suffix in ("png", "csv"):
                (folder / f"{stem}.{suffix}").unlink(missing_ok=True)
    return written
