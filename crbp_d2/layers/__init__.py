"""Layers that the cells are made of: horizontal convolutions and norms; pure torch."""

from .convolution import METHODS, HorizontalConv2d, horizontal_convolution, set_convolution
from .norms import NORMS, build_norm

__all__ = ["METHODS", "NORMS", "HorizontalConv2d", "build_norm", "horizontal_convolution", "set_convolution"]
