"""Gradients of a run, one a file; the interface is `Gradient` in interfaces.py."""
