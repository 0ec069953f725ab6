"""Geometry of Pathfinder stimuli, in pixels of the window they are drawn in.

After the original generator of Linsley et al. 2018 (NeurIPS), as used by Linsley et al. 2020.
"""

import math
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class PathfinderSpec:
    """Geometry and statistics of a stimulus.

    Args:
        dashes: int, dashes of each of the two long contours, at least 2.
        window: int, side of the square that is drawn.
        image_size: int, side of the resulting image; divides `window`.
        dash_length, dash_thickness: float, size of a dash.
        margin: float, minimum distance between the outlines of dashes that are not neighbours; neighbours are
            2 * margin apart along their contour.
        continuity: float, c in the weight cos^2(c d) of the turn angle d, |d| <= pi / (2 c).
        seed_distance: float, distance between the tails of the first dashes.
        border: float, width of the frame without dashes.
        distractor_dashes: int, total number of dashes of the short contours.
        dot_radius: float, radius of the disc at one end of the target.

    Raises:
        ValueError: a value outside these.
    """

    dashes: int
    window: int = 300
    image_size: int = 150
    dash_length: float = 5.0
    dash_thickness: float = 2.0
    margin: float = 3.0
    continuity: float = 1.8
    seed_distance: float = 27.0
    border: float = 22.0
    distractor_dashes: int = 30
    dot_radius: float = 5.0

    def __post_init__(self):
        def require(holds: bool, name: str, allowed: str) -> None:
            if not holds:
                raise ValueError(f"PathfinderSpec: {name} must be {allowed}, got {getattr(self, name)}")

        for name, value in asdict(self).items():
            require(math.isfinite(value) and value >= 0, name, "a finite number from 0")
        require(self.dashes >= 2, "dashes", "at least 2")
        require(self.continuity >= 1, "continuity", "at least 1, so that no turn exceeds a right angle")
        require(self.image_size >= 1 and self.window % self.image_size == 0, "image_size", "a divisor of window")
        require(2 * self.border < self.window, "border", "less than half the window")
        for name in ("dash_length", "dash_thickness", "margin", "seed_distance"):
            require(getattr(self, name) > 0, name, "positive")

    @property
    def spacing(self) -> float:
        """Length of contour per dash, including half of the gaps on both sides."""
        return self.dash_length + 2 * self.margin

    @property
    def distractor_length(self) -> int:
        """Dashes of a short contour: a third of those of a long one."""
        return max(self.dashes // 3, 1)

    @property
    def distractors(self) -> int:
        """Number of short contours."""
        return self.distractor_dashes // self.distractor_length

    @property
    def clearance(self) -> float:
        """Minimum distance between the centre lines of dashes that are not neighbours."""
        return self.margin + self.dash_thickness


def _small(dashes: int) -> PathfinderSpec:
    """One window for all laptop-size sets, so that a model trained on one can be tested on the others."""
    return PathfinderSpec(
        dashes, window=48, image_size=48, dash_length=2, dash_thickness=1, margin=1, seed_distance=8, border=2,
        distractor_dashes=8, dot_radius=2,
    )  # fmt: skip


SPECS = {
    "PF14": PathfinderSpec(14),
    "PF20": PathfinderSpec(20),
    "PF25": PathfinderSpec(25),
    "PF6s": _small(6),
    "PF9s": _small(9),
    "PF12s": _small(12),
}


def pathfinder_spec(spec: PathfinderSpec | str) -> PathfinderSpec:
    """A spec, or the preset of that name.

    Raises:
        ValueError: an unknown name.
    """
    if isinstance(spec, PathfinderSpec):
        return spec
    if spec not in SPECS:
        raise ValueError(f"unknown Pathfinder spec {spec!r}; known: {', '.join(SPECS)}")
    return SPECS[spec]
