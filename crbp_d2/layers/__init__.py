"""Layers that the cells are made of: convolution, fused element-wise functions (in fused.py) and norms; pure torch."""

from .convolution import METHODS, HorizontalConv2d, set_convolution
from .norms import NORMS, build_norm

__all__ = ["METHODS", "NORMS", "HorizontalConv2d", "build_norm", "set_convolution"]
