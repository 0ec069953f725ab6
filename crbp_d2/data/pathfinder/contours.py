"""Growing the contours of a Pathfinder stimulus.

A contour is a chain of pivots `spacing` apart; each dash is in the middle of its link. Everything is
exact plane geometry on the centre lines of dashes, points as complex numbers x + iy in pixels.
Coordinates are rounded to a binary grid, so that the last bits of a machine's sine do not add up.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .spec import PathfinderSpec

# Turn angles tried for a dash, in batches, before its contour counts as stuck.
BATCHES = (4, 12, 24)
# Attempts at a whole stimulus, at growing on from its seeds, and at placing one short contour.
ATTEMPTS, RESTARTS, SHORT_ATTEMPTS = 500, 10, 200
GRID = 2.0**16


class PlacementError(ValueError):
    """The contours of a spec could not be placed in its window."""


@dataclass
class Dashes:
    """Centre lines of M dashes: complex, M each."""

    tails: np.ndarray
    heads: np.ndarray

    def __len__(self) -> int:
        return len(self.tails)

    def __getitem__(self, which) -> "Dashes":
        return Dashes(self.tails[which], self.heads[which])

    @classmethod
    def join(cls, several: list["Dashes"]) -> "Dashes":
        return cls(np.concatenate([d.tails for d in several]), np.concatenate([d.heads for d in several]))


@dataclass
class Contours:
    """The contours of a stimulus; `dot` is the end of the target with the disc."""

    target: Dashes
    distractor: Dashes
    short: list[Dashes]
    dot: complex


class _Contour:
    """A contour that grows from its first dash."""

    def __init__(self, spec: PathfinderSpec, tail: complex, angle: float):
        along = np.exp(1j * angle)
        head = _rounded(tail + spec.dash_length * along)
        self.seed = complex(_rounded(tail)), complex(head), complex(_rounded(head + spec.margin * along)), angle
        self.restart()

    def restart(self) -> None:
        tail, head, self.pivot, self.angle = self.seed
        self.tails, self.heads = [tail], [head]

    def __len__(self) -> int:
        return len(self.tails)

    def dashes(self) -> Dashes:
        return Dashes(np.array(self.tails), np.array(self.heads))

    def grow(self, spec: PathfinderSpec, rng: np.random.Generator, obstacles: Dashes) -> bool:
        """Add a dash; False if the contour is stuck.

        The first free one of angles drawn from the density has the density restricted to free angles.
        """
        for batch in BATCHES:
            angles = self.angle + _turns(spec.continuity, rng.random(batch))
            along = np.exp(1j * angles)
            tails = self.pivot + spec.margin * along
            candidates = Dashes(_rounded(tails), _rounded(tails + spec.dash_length * along))
            free = _inside(spec, candidates)
            if free.any():
                free = free & _clear(spec, candidates, obstacles)
            if free.any():
                first = int(free.argmax())
                self.tails.append(candidates.tails[first])
                self.heads.append(candidates.heads[first])
                self.angle = angles[first]
                self.pivot = complex(_rounded(candidates.heads[first] + spec.margin * along[first]))
                return True
        return False


def draw_contours(spec: PathfinderSpec, rng: np.random.Generator, attempts: int = ATTEMPTS) -> Contours:
    """One stimulus.

    Raises:
        PlacementError: not placed in so many attempts.
    """
    for _ in range(attempts):
        found = _attempt(spec, rng)
        if found is not None:
            return found
    raise PlacementError(f"contours of {spec.dashes} dashes were not placed in {attempts} attempts")


def _attempt(spec: PathfinderSpec, rng: np.random.Generator) -> Contours | None:
    pair = _seeds(spec, rng)
    if pair is None or not _grow_together(spec, rng, *pair):
        return None
    long = [contour.dashes() for contour in pair]
    ends = np.array([[dashes.tails[0], dashes.heads[-1]] for dashes in long])
    # All four ends leave space for a dot, so that free space does not reveal the target.
    for contour_ends, other in zip(ends, long[::-1], strict=True):
        if _distances(contour_ends, other).min() < _dot_clearance(spec):
            return None
    short = _short_contours(spec, rng, Dashes.join(long), ends.reshape(-1))
    if short is None:
        return None
    target, end = rng.integers(2), rng.integers(2)
    return Contours(long[target], long[1 - target], short, complex(ends[target, end]))


def _seeds(spec: PathfinderSpec, rng: np.random.Generator) -> tuple[_Contour, _Contour] | None:
    tail = _anywhere(spec, rng)
    towards, first, second = rng.uniform(0, 2 * np.pi, 3)
    pair = _Contour(spec, tail, first), _Contour(spec, tail + spec.seed_distance * np.exp(1j * towards), second)
    a, b = (contour.dashes() for contour in pair)
    return pair if _inside(spec, a) and _inside(spec, b) and _clear(spec, a, b) else None


def _grow_together(spec: PathfinderSpec, rng: np.random.Generator, first: _Contour, second: _Contour) -> bool:
    """Grow both dash by dash; a stuck one starts again from its seed. False after RESTARTS restarts."""
    restarts = 0
    while min(len(first), len(second)) < spec.dashes:
        for contour, other in ((first, second), (second, first)):
            if len(contour) == spec.dashes:
                continue
            # The last dash of the contour itself is a neighbour, near by construction.
            obstacles = Dashes(
                np.array(other.tails + contour.tails[:-1]), np.array(other.heads + contour.heads[:-1])
            )  # fmt: skip
            if not contour.grow(spec, rng, obstacles):
                restarts += 1
                if restarts > RESTARTS:
                    return False
                contour.restart()
    return True


def _short_contours(
    spec: PathfinderSpec, rng: np.random.Generator, obstacles: Dashes, ends: np.ndarray
) -> list[Dashes] | None:
    found: list[Dashes] = []
    for _ in range(spec.distractors):
        for _ in range(SHORT_ATTEMPTS):
            dashes = _short_contour(spec, rng, obstacles)
            if dashes is not None and _distances(ends, dashes).min() >= _dot_clearance(spec):
                break
        else:
            return None
        found.append(dashes)
        obstacles = Dashes.join([obstacles, dashes])
    return found


def _short_contour(spec: PathfinderSpec, rng: np.random.Generator, obstacles: Dashes) -> Dashes | None:
    contour = _Contour(spec, _anywhere(spec, rng), rng.uniform(0, 2 * np.pi))
    first = contour.dashes()
    if not (_inside(spec, first) and _clear(spec, first, obstacles)):
        return None
    while len(contour) < spec.distractor_length:
        own = contour.dashes()[:-1]
        if not contour.grow(spec, rng, Dashes.join([obstacles, own])):
            return None
    return contour.dashes()


def _anywhere(spec: PathfinderSpec, rng: np.random.Generator) -> complex:
    x, y = rng.uniform(spec.border, spec.window - spec.border, 2)
    return complex(x, y)


def _dot_clearance(spec: PathfinderSpec) -> float:
    return spec.dot_radius + spec.margin + spec.dash_thickness / 2


def _inside(spec: PathfinderSpec, dashes: Dashes) -> np.ndarray:
    """M booleans: the dashes that do not enter the border."""
    middle, reach = complex(spec.window, spec.window) / 2, spec.window / 2 - spec.border
    off = np.concatenate([dashes.tails, dashes.heads]) - middle
    tails, heads = (np.maximum(np.abs(off.real), np.abs(off.imag)) <= reach).reshape(2, -1)
    return tails & heads


def _clear(spec: PathfinderSpec, dashes: Dashes, obstacles: Dashes) -> np.ndarray:
    """M booleans: the dashes that keep the clearance from all obstacles."""
    between = np.abs((dashes.tails + dashes.heads)[:, None] - (obstacles.tails + obstacles.heads)) / 2
    near = (between < spec.clearance + spec.dash_length).any(axis=0)
    if not near.any():
        return np.ones(len(dashes), dtype=bool)
    obstacles = obstacles[near]
    # The distance of two segments that do not cross is that of an end of one from the other; those that
    # cross have ends nearer than the clearance.
    from_ends = np.minimum(_distances(dashes.tails, obstacles), _distances(dashes.heads, obstacles)).min(axis=1)
    to_ends = np.minimum(_distances(obstacles.tails, dashes), _distances(obstacles.heads, dashes)).min(axis=0)
    return np.minimum(from_ends, to_ends) >= spec.clearance


def _distances(points: np.ndarray, dashes: Dashes) -> np.ndarray:
    """P x M distances of points from dashes."""
    along = dashes.heads - dashes.tails
    # In units of the dash, with its tail at 0 and its head at 1.
    relative = (points[:, None] - dashes.tails) / along
    return np.abs(relative - np.clip(relative.real, 0, 1)) * np.abs(along)


def _rounded(points):
    return np.rint(points * GRID) / GRID


def _turns(continuity: float, uniform: np.ndarray) -> np.ndarray:
    """Angles of density proportional to cos^2(c d) on |d| <= pi / (2 c), by inversion."""
    return np.interp(uniform, *_turn_table(continuity))


@lru_cache
def _turn_table(continuity: float) -> tuple[np.ndarray, np.ndarray]:
    angle = np.linspace(-np.pi / 2, np.pi / 2, 4097)
    return 0.5 + (angle + np.sin(2 * angle) / 2) / np.pi, angle / continuity
