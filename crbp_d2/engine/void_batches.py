"""Batches in which nothing is annotated."""

from torch import nn


def allow_void_batches(model: nn.Module) -> None:
    """Give a semantic head a loss of zero, with zero gradients, where every pixel of its targets is to be ignored.

    detectron2's takes the mean over the pixels that are left, of which there are none.

    Args:
        model: with a `sem_seg_head` that returns (predictions, losses) for features and targets, or without one.
    """

    def replace(module: nn.Module, inputs: tuple, output: tuple) -> tuple | None:
        if not module.training or len(inputs) < 2 or inputs[1] is None or (inputs[1] != module.ignore_value).any():
            return None
        features, _ = inputs
        # Connected to the graph, so that every parameter has a gradient.
        parts = [*features.values(), *(p for p in module.parameters() if p.requires_grad)]
        zero = sum(part.sum() for part in parts) * 0
        predictions, losses = output
        return predictions, dict.fromkeys(losses, zero)

    head = getattr(model, "sem_seg_head", None)
    if hasattr(head, "ignore_value"):
        head.register_forward_hook(replace)
