"""Stimuli against the facts of the original generator, measured on the contours and on the pixels."""

import zlib

import cv2
import numpy as np
import pytest
from scipy import stats

from crbp_d2.data.pathfinder.contours import Dashes
from crbp_d2.data.pathfinder.spec import SPECS, PathfinderSpec
from crbp_d2.data.pathfinder.stimuli import GENERATOR, generate_pathfinder, render, stimulus_contours

COUNT = 200


@pytest.fixture(scope="module")
def drawn():
    return [stimulus_contours(SPECS["PF14"], 0, index) for index in range(COUNT)]


def directions(dashes):
    return np.angle(dashes.heads - dashes.tails)


def turns(dashes):
    return np.angle(np.exp(1j * np.diff(directions(dashes))))


@pytest.mark.parametrize(
    "name,dashes,short",
    [
        ("PF14", 14, (7, 4)),
        ("PF20", 20, (5, 6)),
        ("PF25", 25, (3, 8)),
        ("PF6s", 6, (4, 2)),
        ("PF9s", 9, (2, 3)),
        ("PF12s", 12, (2, 4)),
    ],
)
def test_number_and_size_of_contours_and_dashes(name, dashes, short):
    spec = SPECS[name]
    contours = stimulus_contours(spec, 3, 0)
    assert len(contours.target) == len(contours.distractor) == dashes
    assert (len(contours.short), {len(c) for c in contours.short}) == (short[0], {short[1]})
    for chain in (contours.target, contours.distractor, *contours.short):
        np.testing.assert_allclose(np.abs(chain.heads - chain.tails), spec.dash_length, atol=1e-4)
        # From a head one margin straight on to the pivot, another to the next tail.
        pivots = chain.heads + spec.margin * np.exp(1j * directions(chain))
        np.testing.assert_allclose(chain.tails[1:], (pivots + spec.margin * np.exp(1j * directions(chain)) * np.exp(
            1j * np.append(turns(chain), 0)))[:-1], atol=1e-3)  # fmt: skip


def test_presets_have_the_originals_geometry():
    spec = SPECS["PF14"]
    assert (spec.window, spec.image_size, spec.border, spec.dash_length, spec.dash_thickness) == (300, 150, 22, 5, 2)
    assert (spec.margin, spec.continuity, spec.seed_distance, spec.dot_radius) == (3, 1.8, 27, 5)
    assert spec.distractors * spec.distractor_length <= 30


def test_turns_follow_the_squared_cosine(drawn):
    """Excluded candidates bend the distribution a little; a wrong exponent or continuity does far more."""
    found = np.concatenate([turns(c) for contours in drawn for c in (contours.target, contours.distractor)])
    limit = np.pi / (2 * 1.8)
    assert np.abs(found).max() <= limit + 1e-3

    def cumulative(d, power=2, continuity=1.8):
        grid = np.linspace(-np.pi / (2 * continuity), np.pi / (2 * continuity), 2001)
        weight = np.cos(continuity * grid) ** power
        return np.interp(d, grid, np.cumsum(weight) / weight.sum())

    distance = stats.kstest(found, cumulative).statistic
    assert distance < 1.63 / np.sqrt(len(found)) + 0.01  # the 1 % point, and the bend
    assert stats.kstest(found, lambda d: cumulative(d, power=1)).statistic > 2 * distance
    assert stats.kstest(found, lambda d: cumulative(d, continuity=1.4)).statistic > 2 * distance


def test_seeds_are_27_apart_and_the_dot_is_at_an_end(drawn):
    ends = []
    for contours in drawn:
        assert abs(contours.target.tails[0] - contours.distractor.tails[0]) == pytest.approx(27, abs=1e-3)
        at = [contours.dot == contours.target.tails[0], contours.dot == contours.target.heads[-1]]
        assert sum(at) == 1
        ends.append(at[0])
    assert 0.25 < np.mean(ends) < 0.75


def sampled(dashes, points=21):
    share = np.linspace(0, 1, points)
    return dashes.tails[:, None] + (dashes.heads - dashes.tails)[:, None] * share


@pytest.mark.parametrize("name", ["PF14", "PF12s"])
def test_contours_never_touch_each_other_or_the_border(name):
    spec = SPECS[name]
    for index in range(6):
        contours = stimulus_contours(spec, 1, index)
        chains = [contours.target, contours.distractor, *contours.short]
        for k, chain in enumerate(chains):
            points = sampled(chain)
            assert min(points.real.min(), points.imag.min()) >= spec.border
            assert max(points.real.max(), points.imag.max()) <= spec.window - spec.border
            for other in chains[k + 1 :]:
                gap = np.abs(points.reshape(-1, 1) - sampled(other).reshape(-1)).min()
                assert gap >= spec.margin + spec.dash_thickness - 1e-6
            for j in range(len(chain)):  # and never itself
                for i in range(j - 1):
                    assert np.abs(points[i][:, None] - points[j]).min() >= spec.margin + spec.dash_thickness - 1e-6


def test_nothing_but_the_dot_gives_the_target_away(drawn):
    """Length, position, curvature and free space around the ends have one distribution for target and distractor."""

    def measures(contour, others):
        middle = (contour.tails + contour.heads).mean() / 2
        ends = np.array([contour.tails[0], contour.heads[-1]])
        space = np.abs(ends[:, None] - np.concatenate([sampled(o).reshape(-1) for o in others])).min()
        return (abs(contour.heads[-1] - contour.tails[0]), middle.real, middle.imag, abs(middle - 150 - 150j),
                np.abs(turns(contour)).mean(), abs(turns(contour).sum()), space)  # fmt: skip

    targets = np.array([measures(c.target, [c.distractor, *c.short]) for c in drawn])
    distractors = np.array([measures(c.distractor, [c.target, *c.short]) for c in drawn])
    for one, other in zip(targets.T, distractors.T, strict=True):
        assert stats.ks_2samp(one, other).pvalue > 0.01


def test_pixels_show_dashes_dot_and_mask():
    spec = PathfinderSpec(6, image_size=300)
    contours = stimulus_contours(spec, 0, 0)
    image, mask = render(spec, contours)
    # Area is kept by antialiasing: 10 px a dash, a disc of radius 5, less where the disc covers its dash.
    dashes = 2 * 6 + spec.distractors * spec.distractor_length
    assert image.sum() / 255 == pytest.approx(dashes * 10 + np.pi * 25 - 9, rel=0.02)
    assert image.max() == 255 and image[0].max() == 0
    # Each dash of the target is a piece of the mask, the dot joined with one.
    pieces, labels = cv2.connectedComponents(mask)
    assert pieces - 1 == 6
    for middle in (contours.target.tails + contours.target.heads) / 2:
        assert mask[int(middle.imag), int(middle.real)] == 1
    for middle in (contours.distractor.tails + contours.distractor.heads) / 2:
        assert mask[int(middle.imag), int(middle.real)] == 0
        assert image[int(middle.imag), int(middle.real)] > 100
    assert mask[int(contours.dot.imag), int(contours.dot.real)] == 1


def test_a_stimulus_depends_on_spec_seed_and_number_only():
    images, masks = generate_pathfinder("PF6s", 5, seed=7)
    assert images.shape == masks.shape == (5, 48, 48) and images.dtype == masks.dtype == np.uint8
    assert set(np.unique(masks)) == {0, 1}
    later, _ = generate_pathfinder("PF6s", 2, seed=7, first=3)
    assert np.array_equal(images[3:], later)
    assert not np.array_equal(images, generate_pathfinder("PF6s", 5, seed=8)[0])
    assert len({image.tobytes() for image in images}) == 5


@pytest.mark.parametrize(
    "name,pixels",
    [
        ("PF14", "2e891ee7"),
        ("PF6s", "bda50a60"),
    ],
)
def test_stimuli_stay_the_same(name, pixels):
    """Files on disk are only as good as this: whoever changes the stimuli raises GENERATOR, and then this value."""
    images, masks = generate_pathfinder(name, 3, seed=0)
    assert f"{zlib.crc32(images.tobytes() + masks.tobytes()):08x}" == pixels
    assert GENERATOR == 1


def test_join_and_select_of_dashes():
    a = Dashes(np.array([1 + 1j, 2]), np.array([2 + 1j, 3]))
    joined = Dashes.join([a, a[1:]])
    assert len(joined) == 3 and joined.heads[2] == 3


def test_a_spec_that_does_not_fit_names_the_largest_that_does():
    small = {**SPECS["PF6s"].__dict__, "distractor_dashes": 0, "dashes": 60}
    with pytest.raises(ValueError, match=r"60 dashes .*48 px.*that fit are \d+"):
        generate_pathfinder(PathfinderSpec(**small), 1)


def test_refusals():
    with pytest.raises(ValueError, match="spec 'PF15'; known: PF14"):
        generate_pathfinder("PF15", 1)
    with pytest.raises(ValueError, match="image_size must be .* got 140"):
        PathfinderSpec(14, image_size=140)
    with pytest.raises(ValueError, match="margin must be .* got nan"):
        PathfinderSpec(14, margin=float("nan"))
    with pytest.raises(ValueError, match="dashes must be at least 2, got 1"):
        PathfinderSpec(1)
