"""Drawing Pathfinder stimuli and their masks."""

from bisect import bisect_left
from dataclasses import replace
from functools import lru_cache

import numpy as np

from .contours import Contours, Dashes, PlacementError, draw_contours
from .spec import PathfinderSpec, pathfinder_spec

# Increased whenever the same arguments give other stimuli: files of different generators are never mixed.
GENERATOR = 1
# Fraction of a pixel that the target's dashes or dot must cover for the pixel to belong to the mask.
MASK_COVERAGE = 0.25
# A spec fits if PROBES stimuli are each placed in PROBE_ATTEMPTS; at that rate of success fewer than one of 10^9
# stimuli fails 500 times in a row.
PROBES, PROBE_ATTEMPTS = 3, 60


def generate_pathfinder(
    spec: PathfinderSpec | str, count: int, seed: int | tuple[int, ...] = 0, first: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Draw stimuli `first` ... `first` + `count` - 1 of a seed.

    Args:
        spec: a spec or the name of a preset, such as "PF14".
        count: number of stimuli.
        seed: one or several non-negative integers. A stimulus depends on spec, seed and its number only.

    Returns:
        images: uint8, count x H x W, background 0 and dashes and dot 255, antialiased.
        masks: uint8, count x H x W, 1 on the dashes of the target contour and its dot.

    Raises:
        ValueError: an unknown preset; a spec that does not fit its window, with the largest that does.
    """
    spec = pathfinder_spec(spec)
    check_fits(spec)
    shape = count, spec.image_size, spec.image_size
    images, masks = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    for k in range(count):
        images[k], masks[k] = render(spec, stimulus_contours(spec, seed, first + k))
    return images, masks


def stimulus_contours(spec: PathfinderSpec, seed: int | tuple[int, ...], index: int) -> Contours:
    """The contours of one stimulus."""
    return draw_contours(spec, _generator(seed, index))


def _generator(seed: int | tuple[int, ...], index: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(index,))))


@lru_cache
def check_fits(spec: PathfinderSpec) -> None:
    """Check that contours of this length can be placed.

    Raises:
        ValueError: names the maximum number of dashes.
    """
    if _fits(spec):
        return
    # The first number of dashes that does not fit, by bisection.
    too_many = 2 + bisect_left(range(2, spec.dashes), True, key=lambda dashes: not _fits(replace(spec, dashes=dashes)))
    largest = f"the most that fit are {too_many - 1}" if too_many > 2 else "not even 2 dashes fit"
    raise ValueError(
        f"PathfinderSpec: two contours of {spec.dashes} dashes ({spec.spacing:g} px each) and the distractors cannot "
        f"be placed in a window of {spec.window} px with a border of {spec.border:g} px; {largest}"
    )


def _fits(spec: PathfinderSpec) -> bool:
    try:
        for index in range(PROBES):
            draw_contours(spec, _generator(0, index), PROBE_ATTEMPTS)
    except PlacementError:
        return False
    return True


def render(spec: PathfinderSpec, contours: Contours) -> tuple[np.ndarray, np.ndarray]:
    """Stimulus (0 to 255) and mask (0 or 1) of contours, each uint8, H x W."""
    target = np.zeros((spec.window, spec.window), np.float64)
    _draw_dashes(target, contours.target, spec.dash_thickness)
    _draw_disc(target, contours.dot, spec.dot_radius)
    everything = target.copy()
    _draw_dashes(everything, Dashes.join([contours.distractor, *contours.short]), spec.dash_thickness)
    image = np.rint(255 * _reduce(everything, spec)).astype(np.uint8)
    return image, (_reduce(target, spec) >= MASK_COVERAGE).astype(np.uint8)


def _reduce(canvas: np.ndarray, spec: PathfinderSpec) -> np.ndarray:
    factor = spec.window // spec.image_size
    return canvas.reshape(spec.image_size, factor, spec.image_size, factor).mean(axis=(1, 3))


def _draw_dashes(canvas: np.ndarray, dashes: Dashes, thickness: float) -> None:
    """Draw M rectangles along centre lines, each pixel by its covered fraction."""
    along = dashes.heads - dashes.tails
    length = np.abs(along)
    columns, rows, from_middle = _patches((dashes.tails + dashes.heads) / 2, (length.max() + thickness) / 2)
    turned = from_middle * (along.conj() / length)[:, None, None]
    covered = _cover(length[:, None, None] / 2 - np.abs(turned.real)) * _cover(thickness / 2 - np.abs(turned.imag))
    _paste(canvas, covered, columns, rows)


def _draw_disc(canvas: np.ndarray, centre: complex, radius: float) -> None:
    columns, rows, from_centre = _patches(np.array([centre]), radius)
    _paste(canvas, _cover(radius - np.abs(from_centre)), columns, rows)


def _patches(centres: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Square patches of S pixels a side about M centres, `radius` and antialiasing wide.

    Returns columns and rows (M x S) and every pixel's vector from the centre (complex, M x S x S).
    """
    reach = int(np.ceil(radius + 1))
    offset = np.arange(2 * reach + 1) - reach
    columns = np.floor(centres.real).astype(int)[:, None] + offset
    rows = np.floor(centres.imag).astype(int)[:, None] + offset
    pixels = (columns + 0.5)[:, None, :] + 1j * (rows + 0.5)[:, :, None]
    return columns, rows, pixels - centres[:, None, None]


def _cover(inside: np.ndarray) -> np.ndarray:
    """Covered fraction of a pixel whose centre is `inside` px within an outline."""
    return np.minimum(np.maximum(inside + 0.5, 0), 1)


def _paste(canvas: np.ndarray, patches: np.ndarray, columns: np.ndarray, rows: np.ndarray) -> None:
    """Draw M x S x S patches by the maximum of patch and canvas; parts off the canvas are dropped."""
    size = len(canvas)
    for patch, column, row in zip(patches, columns, rows, strict=True):
        left, top = max(-column[0], 0), max(-row[0], 0)
        right, bottom = min(size - column[0], len(column)), min(size - row[0], len(row))
        region = canvas[row[0] + top : row[0] + bottom, column[0] + left : column[0] + right]
        np.maximum(region, patch[top:bottom, left:right], out=region)
