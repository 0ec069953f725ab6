"""Predictions of a trained model on images that belong to no data set.

H x W: image size; C: channels.
"""

from collections.abc import Hashable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from torch import nn

from crbp_d2.modeling.contour_head import ContourReadout
from crbp_d2.modeling.heads import recurrent_heads


@contextmanager
def test_steps(model: nn.Module, steps: int | None) -> Iterator[None]:
    """Have every recurrent head take `steps` cell evaluations in inference; None: their own number."""
    heads = recurrent_heads(model)
    before = [head.test_steps for head in heads]
    try:
        for head in heads:
            head.test_steps = head.test_steps if steps is None else steps
        yield
    finally:
        for head, number in zip(heads, before, strict=True):
            head.test_steps = number


class Predictor:
    """A model applied to single images, resized as in evaluation.

    Args:
        cfg: config of the model.
        model: in evaluation mode.
    """

    def __init__(self, cfg: CfgNode, model: nn.Module):
        self.model = model
        self.grey = len(cfg.MODEL.PIXEL_MEAN) == 1
        self.contours = isinstance(getattr(model, "sem_seg_head", None), ContourReadout)
        self.format = "L" if self.grey else cfg.INPUT.FORMAT
        # Stimuli of Pathfinder are never resized.
        sides = [] if self.contours else [T.ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)]
        self.augmentations = T.AugmentationList(sides)

    def inputs(self, image: np.ndarray) -> list[dict]:
        """The model's input for an H x W x C uint8 image in `format` (C may be absent if it is 1)."""
        inputs = T.AugInput(np.ascontiguousarray(image if image.ndim == 3 else image[..., None]))
        self.augmentations(inputs)
        pixels = torch.tensor(inputs.image.transpose(2, 0, 1).copy())
        return [{"image": pixels, "height": image.shape[0], "width": image.shape[1]}]

    @torch.no_grad()
    def __call__(self, image: np.ndarray, steps: int | None = None) -> dict:
        """The model's output for one image, H x W x C uint8 in `format`, after `steps` cell evaluations."""
        with test_steps(self.model, steps):
            return self.model(self.inputs(image))[0]


@contextmanager
def carried_states(model: nn.Module, track: Hashable = None) -> Iterator[None]:
    """Have the model's semantic heads start from the state that the last image left; see their carry_state.

    Raises:
        ValueError: no such head: the boxes of a mask head are others in each image.
    """
    heads = [head for head in recurrent_heads(model) if hasattr(head, "carry_state")]
    if not heads:
        names = ", ".join(type(head).__name__ for head in recurrent_heads(model)) or "no recurrent head"
        raise ValueError(f"--carry-state needs a RecurrentSemSegHead; this run has {names}")
    with ExitStack() as stack:
        for head in heads:
            stack.enter_context(head.carry_state(track))
        yield
