"""The README's picture, from the committed checkpoints."""

import numpy as np
import pytest

from tools.steps_picture import CONTOUR_STEPS, SCENE_STEPS, contour_strip, scene_strip, stack


@pytest.mark.slow
@pytest.mark.parametrize("strip,steps", [(scene_strip, SCENE_STEPS), (contour_strip, CONTOUR_STEPS)])
def test_each_step_comes_closer_to_the_last(strip, steps):
    panels = np.split(strip().astype(float), len(steps) + 1, axis=1)[1:]
    distances = [abs(panel[40:] - panels[-1][40:]).mean() for panel in panels]
    assert distances[-2] < distances[1] < distances[0] and distances[0] > 1


def test_strips_have_one_width():
    picture = stack([np.zeros((10, 20, 3), np.uint8), np.zeros((30, 40, 3), np.uint8)], width=40)
    assert picture.shape == (20 + 6 + 30, 40, 3)
