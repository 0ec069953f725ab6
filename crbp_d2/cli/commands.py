"""The console commands, which the tools of the same names call too.

Each imports its program when it is called, so that a missing package is one sentence and no traceback.
"""

import sys
from importlib import import_module
from pathlib import Path

from crbp_d2.utils.imports import missing


def train() -> None:
    """`crbp-train`, tools/train_net.py: train or evaluate a model."""
    _run("crbp_d2.engine.run")


def predict() -> None:
    """`crbp-predict`, tools/predict.py: predict on pictures and videos with a trained run."""
    _run("crbp_d2.cli.predict")


def check_dataset() -> None:
    """`crbp-check-dataset`, tools/check_dataset.py: find what is wrong with panoptic data sets."""
    _run("crbp_d2.cli.check_dataset")


def analyze_model() -> None:
    """`crbp-analyze-model`, tools/analyze_model.py: parameters and FLOPs of a model by part and by step."""
    _run("crbp_d2.cli.analyze_model")


def generate_pathfinder() -> None:
    """`crbp-generate-pathfinder`, tools/generate_pathfinder.py: write the stimuli of a Pathfinder data set."""
    _run("crbp_d2.cli.generate_pathfinder")


def convert_authors_weights() -> None:
    """`crbp-convert-authors-weights`, tools/convert_authors_weights.py: convert a released checkpoint."""
    _run("crbp_d2.cli.convert_authors_weights")


def list_models() -> None:
    """`python -m crbp_d2.model_zoo`: the configs, and what of their weights and data is on this machine."""
    _run("crbp_d2.cli.list_models")


def _run(module: str) -> None:
    """Call a module's main() with the command line.

    Raises:
        SystemExit: with the status that main() returns, if it returns one; with one sentence where a package that it
            is built on is missing.
    """
    try:
        main = import_module(module).main
    except ModuleNotFoundError as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {missing(error.name or str(error))}")
    status = main()
    if isinstance(status, int):
        sys.exit(status)
