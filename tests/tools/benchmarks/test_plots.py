"""Figures on a page."""

import cv2
import numpy as np
import pytest

from tools.benchmarks.plots import STYLES, Panel, picture


def panel(count, **settings):
    curves = {f"curve {k}": ([1, 2, 4], [k + 1, k + 2, k + 4]) for k in range(count)}
    return Panel("title", "steps", "time, s", curves, **settings)


def test_a_picture_lies_beside_its_page_and_is_shown_on_it(tmp_path):
    text = picture(tmp_path / "PAGE.md", "some", "time against steps", [panel(2), panel(1, log="xy", ticks=(1, 2, 4))])
    assert text == "![time against steps](benchmarks/some.png)"
    assert [path.name for path in (tmp_path / "benchmarks").iterdir()] == ["some.png"]
    image = cv2.imread(str(tmp_path / "benchmarks/some.png"))
    assert image.shape[1] > 1.8 * image.shape[0]
    # Nothing but greys.
    assert np.ptp(image.astype(int), axis=2).max() == 0 and image.min() < 50


def test_curves_differ_without_colours(tmp_path):
    assert len({style[:2] for style in STYLES}) == len(STYLES)
    with pytest.raises(ValueError):
        picture(tmp_path / "PAGE.md", "many", "", [panel(len(STYLES) + 1)])


def test_four_panels_take_two_rows(tmp_path):
    for count in (3, 4):
        picture(tmp_path / "PAGE.md", str(count), "", [panel(1)] * count)
    three, four = (cv2.imread(str(tmp_path / f"benchmarks/{count}.png")) for count in (3, 4))
    assert four.shape[0] == pytest.approx(2 * three.shape[0], abs=2) and four.shape[1] == three.shape[1]
