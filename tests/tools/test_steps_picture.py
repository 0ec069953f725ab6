"""The README's picture, from the committed checkpoints."""

import numpy as np
import pytest

from crbp_d2.data.panoptic.toy import draw_scene
from crbp_d2.evaluation.drawing import resize
from tools.steps_picture import CONTOUR_STEPS, SCENE, SCENE_SIDE, SCENE_STEPS, contour_strip, scene_strip, stack


def panels(strip, count):
    """Panels without their titles."""
    return [panel[40:].astype(float) for panel in np.split(strip, count + 1, axis=1)]


@pytest.mark.slow
def test_masks_of_a_scene_grow_with_the_steps():
    shown, *steps = panels(scene_strip(), len(SCENE_STEPS))
    # 34 rows of title, and a border on the right.
    assert np.array_equal(shown[:, :-4], resize(draw_scene(SCENE, SCENE_SIDE).image)[6:, :-4])
    changed = [(abs(panel - steps[0]).max(axis=2) > 40).mean() for panel in steps]
    assert changed[0] < changed[1] < changed[2] < changed[-1]


@pytest.mark.slow
def test_a_contour_is_traced_with_the_steps():
    _, *steps = panels(contour_strip(), len(CONTOUR_STEPS))
    orange = [((panel[..., 0] > 200) & (panel[..., 2] < 60)).mean() for panel in steps]
    assert orange[0] < orange[1] < orange[2] < orange[3] and orange[-1] > 1.5 * orange[0]


def test_strips_have_one_width():
    picture = stack([np.zeros((10, 20, 3), np.uint8), np.zeros((30, 40, 3), np.uint8)], width=40)
    assert picture.shape == (20 + 6 + 30, 40, 3)
