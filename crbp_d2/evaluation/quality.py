"""Panoptic quality (Kirillov et al. 2019) from counted pixels, at one or several step counts at once.

The same figures as panopticapi's pq_compute. Areas are those of the pixels, never those that a JSON claims.

T: step counts; P: predicted, G: true segments of an image. A class is (isthing, contiguous id).
"""

from collections.abc import Mapping

import numpy as np

Class = tuple[bool, int]
GROUPS = {"": (True, False), "_th": (True,), "_st": (False,)}


def match(
    overlaps: np.ndarray, predicted: list[Class | None], segments: list[dict], areas: np.ndarray
) -> dict[Class, np.ndarray]:
    """Match the segments of one image.

    Args:
        overlaps: T x P x (G + 1) pixels, those of no true segment first.
        predicted: the classes of the P segments, None for what is none.
        segments: the G true ones of a record.
        areas: their G numbers of pixels.

    Returns:
        class -> T x 4: sum of the IoUs of the matched, true positives, false positives, false negatives.
    """
    true = [(bool(segment["isthing"]), segment["category_id"]) for segment in segments]
    crowd = np.array([bool(segment["iscrowd"]) for segment in segments], bool)
    codes = {c: k for k, c in enumerate(dict.fromkeys(c for c in (*predicted, *true) if c is not None))}
    of_predicted = np.array([codes.get(c, -1) for c in predicted], int)
    of_true = np.array([codes[c] for c in true], int)
    area, void = overlaps.sum(axis=2), overlaps[:, :, 0]
    p, g = np.nonzero((of_predicted[:, None] == of_true) & overlaps[:, :, 1:].any(axis=0))
    common = overlaps[:, p, g + 1]
    iou = common / np.maximum(area[:, p] + areas[g] - common - void[:, p], 1)
    hit = (iou > 0.5) & ~crowd[g]
    matched, missed = np.zeros(area.shape, bool), np.tile(~crowd, (len(overlaps), 1))
    steps, pairs = np.nonzero(hit)
    matched[steps, p[pairs]] = True
    missed[steps, g[pairs]] = False
    # A segment that lies mostly where nothing is annotated, or in the crowd of its class, is neither right nor wrong.
    ignored = void.astype(np.int64)
    last_crowd = {of_true[k]: k for k in np.flatnonzero(crowd)}
    for code, k in last_crowd.items():
        ignored[:, of_predicted == code] += overlaps[:, of_predicted == code, k + 1]
    false = (area > 0) & ~matched & (ignored <= 0.5 * area)
    found = np.zeros((len(codes), len(overlaps), 4))
    np.add.at(found[:, :, 0].T, (steps, of_true[g[pairs]]), iou[steps, pairs])
    np.add.at(found[:, :, 1].T, (steps, of_true[g[pairs]]), 1)
    for column, of_class, counted in ((2, of_predicted, false), (3, of_true, missed)):
        known = of_class >= 0
        np.add.at(found[:, :, column], of_class[known], counted[:, known].T)
    return {c: found[code] for c, code in codes.items()}


def total(images: Mapping[object, Mapping[Class, np.ndarray]]) -> dict[Class, np.ndarray]:
    """Sum of the counts of several images."""
    counts: dict[Class, np.ndarray] = {}
    for of_image in images.values():
        for c, found in of_image.items():
            counts[c] = counts[c] + found if c in counts else found
    return counts


def quality(counts: np.ndarray) -> dict[str, np.ndarray]:
    """PQ, SQ and RQ in percent of C x T x 4 counts: C x T each, not a number where a class does not occur."""
    iou, tp, fp, fn = np.moveaxis(counts.astype(np.float64), -1, 0)
    halves = tp + (fp + fn) / 2
    occurs = np.where(halves > 0, 100.0, np.nan)
    halves, matched = np.maximum(halves, 0.5), np.maximum(tp, 1)
    return {"PQ": occurs * iou / halves, "SQ": occurs * iou / matched, "RQ": occurs * tp / halves}


def group_means(counts: Mapping[Class, np.ndarray], steps: int) -> dict[str, np.ndarray]:
    """Means over the classes that occur, with suffix _th and _st over things and stuff: T each.

    Not a number where no class of a group occurs.
    """
    results = {}
    for suffix, kinds in GROUPS.items():
        of_group = [found for (isthing, _), found in counts.items() if isthing in kinds]
        for measure, values in quality(np.array(of_group).reshape(-1, steps, 4)).items():
            number = np.count_nonzero(~np.isnan(values), axis=0)
            mean = np.nansum(values, axis=0) / np.where(number > 0, number, 1)
            results[f"{measure}{suffix}"] = np.where(number > 0, mean, np.nan)
    return results
