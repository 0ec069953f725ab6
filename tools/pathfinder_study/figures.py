"""All figures of the study: what each shows, and writing those there are records for."""

from collections.abc import Callable
from pathlib import Path

from .figure_style import Drawing
from .records import Study
from .score_figures import (
    budget,
    longer_contours,
    parameters,
    quality_per_step,
    quality_per_step_convlstm,
    quality_per_step_fixed_point,
    quality_per_step_variants,
    scores,
    trained_on_longer,
)
from .state_figures import state_space_maps, state_space_tests
from .training_figures import penalty, stability, training

# stem -> how it is drawn, title, caption; in brackets the figure of the paper's supplement that it stands for
FIGURES: dict[str, tuple[Callable[[Study], Drawing | None], str, str]] = {
    "quality_per_step": (
        quality_per_step,
        "Quality over steps",
        "F1 over the number of steps up to 16 N, in units of the N steps a rule was trained with. Marked: N, 4 N and "
        "16 N. Bands: least and greatest seed. The first panel has contours as in training, the others longer ones.",
    ),
    "quality_per_step_variants": (
        quality_per_step_variants,
        "Rules that unroll (S4)",
        "The same for BPTT, with the penalty, truncated, and with a loss on every step.",
    ),
    "quality_per_step_fixed_point": (
        quality_per_step_fixed_point,
        "Rules of a fixed point",
        "The same for the forms of C-RBP, RBP and DEQ.",
    ),
    "quality_per_step_convlstm": (
        quality_per_step_convlstm,
        "ConvLSTM and feedforward (S3)",
        "The same for the ConvLSTM, with the feedforward controls as levels.",
    ),
    "scores": (
        scores,
        "Rules and contour lengths (S5)",
        "F1 of every rule on every contour length after N, 4 N and 16 N steps, mean over seeds. '-': not run.",
    ),
    "budget": (
        budget,
        "Quality and time of training",
        "F1 on the trained contours at N, 4 N and 16 N, and the time of training, mean over seeds.",
    ),
    "training": (
        training,
        "Training (S6)",
        "Training loss, and what fixed validation stimuli give while training: F1 at N and at 4 N and the relative "
        "change of the state in step N. Mean over seeds; values below 1e-6 are drawn there.",
    ),
    "penalty": (
        penalty,
        "Penalty (S7)",
        "The Lipschitz penalty at N on fixed validation stimuli while training (bound 0.9, mean, before weighting), "
        "also of rules that are trained without it. Mean over seeds; values below 1e-6 are drawn there.",
    ),
    "longer_contours": (
        longer_contours,
        "Generalization to longer contours (S8)",
        "F1 on contours longer than in training over the number of steps. Marked: N, 4 N and 16 N. Bands: least and "
        "greatest seed.",
    ),
    "trained_on_longer": (
        trained_on_longer,
        "Trained on longer contours",
        "F1 over steps of rules that were trained on PF9s.",
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
        "F1 at N over the number of parameters, recurrent and feedforward.",
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
