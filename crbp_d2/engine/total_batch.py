"""Training on several processes as on one with the whole batch.

W: processes; n: what a loss is a mean over (RoIs, pixels) in this process; N: in all of them.
"""

import functools
from collections.abc import Callable

import torch
from detectron2.utils import comm
from torch import Tensor, distributed, nn

from .seeding import ROI_SAMPLING, seed_generators

# What detectron2's heads take the mean of each loss over; that of other losses is the same in every process.
COUNTED = {"loss_mask": "masks", "loss_cls": "boxes", "loss_box_reg": "boxes", "loss_sem_seg": "pixels"}


def weigh_by_total_batch(model: nn.Module) -> None:
    """Weigh each loss by W n / N, so that the mean over processes, which DistributedDataParallel takes of gradients,
    is the mean over the whole batch.

    A penalty of MODEL.RECURRENCE.PENALTY.REDUCTION "sum" stays a sum over the RoIs of a process, as in the paper's
    training on several GPUs.

    Args:
        model: returns a dict of losses in training; not in DistributedDataParallel.
    """
    if comm.get_world_size() == 1:
        return
    counts: dict[str, int] = {}
    roi_heads = getattr(model, "roi_heads", None)
    mask_head = getattr(roi_heads, "mask_head", None)
    predictor = getattr(roi_heads, "box_predictor", None)
    sem_seg_head = getattr(model, "sem_seg_head", None)
    counted = dict(COUNTED)
    penalty = getattr(getattr(mask_head, "recurrence", None), "penalty", None)
    if getattr(penalty, "reduction", None) == "mean":
        counted["loss_lipschitz"] = "masks"

    def count_masks(module: nn.Module, inputs: tuple) -> None:
        counts["masks"] = sum(len(of_image) for of_image in inputs[1])

    def count_boxes(module: nn.Module, inputs: tuple) -> None:
        counts["boxes"] = len(inputs[0])

    def count_pixels(module: nn.Module, inputs: tuple) -> None:
        if len(inputs) > 1 and inputs[1] is not None:
            counts["pixels"] = (inputs[1] != module.ignore_value).sum().item()

    def weigh(module: nn.Module, inputs: tuple, losses: dict[str, Tensor]) -> dict[str, Tensor] | None:
        if not module.training:
            return None
        names = sorted({*counted.values()})
        own = torch.tensor([float(counts.get(name, 0)) for name in names], device=next(module.parameters()).device)
        total = own.clone()
        distributed.all_reduce(total)
        weights = torch.where(total > 0, own * comm.get_world_size() / total, 1.0)
        by_name = dict(zip(names, weights, strict=True))
        return {name: loss * by_name[counted[name]] if name in counted else loss for name, loss in losses.items()}

    if mask_head is not None:
        mask_head.register_forward_pre_hook(count_masks)
    if predictor is not None and not isinstance(predictor, nn.ModuleList):
        predictor.register_forward_pre_hook(count_boxes)
    if hasattr(sem_seg_head, "ignore_value"):
        sem_seg_head.register_forward_pre_hook(count_pixels)
    model.register_forward_hook(weigh)


def sample_rois_by_image(model: nn.Module, seed: Callable[[], int], iteration: Callable[[], int]) -> None:
    """Draw the anchors and RoIs that an image is trained on from (seed, iteration, place of the image in the batch).

    So they do not depend on which process an image is dealt to, nor on what is drawn for the images before it.

    Args:
        model: detectron2's RPN and ROI heads are looked for in it.
        seed: of the run.
        iteration: the current one.
    """
    samplers = (("proposal_generator", "_subsample_labels"), ("roi_heads", "_sample_proposals"))
    for stage, (part, method) in enumerate(samplers):
        module = getattr(model, part, None)
        if hasattr(module, method):
            key = functools.partial(_roi_key, seed, iteration, stage)
            _seed_calls(module, method, iteration, key)


def _roi_key(seed: Callable[[], int], iteration: Callable[[], int], stage: int, place: int) -> tuple[int, ...]:
    return seed(), ROI_SAMPLING, iteration(), stage, place


def _seed_calls(module: nn.Module, method: str, step: Callable[[], int], key: Callable[[int], tuple[int, ...]]) -> None:
    """Seed the generators before each call of a method, the k-th of which in a step is about the k-th image."""
    original = getattr(module, method)
    current, images = step(), 0

    def seeded_call(*args, **kwargs):
        nonlocal current, images
        if current != step():
            current, images = step(), 0
        # As TrainLoader deals the images.
        seed_generators(*key(images * comm.get_world_size() + comm.get_rank()))
        images += 1
        return original(*args, **kwargs)

    setattr(module, method, seeded_call)
