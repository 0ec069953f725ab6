"""Training engine."""

from crbp_d2.utils import _detectron2  # noqa: F401, I001  (first: it explains a missing detectron2)

from .setup import check_inputs, setup
from .trainer import Trainer

__all__ = ["Trainer", "check_inputs", "setup"]
