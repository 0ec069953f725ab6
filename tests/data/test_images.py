"""Image files and JSONs: large images are not called damaged, and JSONs are strict."""

import json

import numpy as np
import pytest
from PIL import Image

from crbp_d2.data.images import ImageError, UnreadableImageError, read_header, read_image, write_json


def test_large_images_are_told_from_damaged_ones(tmp_path, monkeypatch):
    path = str(tmp_path / "a.png")
    Image.fromarray(np.zeros((30, 50, 3), np.uint8)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow warns from here on, and refuses twice as many
    assert read_image(path, "BGR", 50, 30).shape == (30, 50, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)
    with pytest.raises(ImageError, match=r"a\.png is too large: .*1500.*MAX_IMAGE_PIXELS"):
        read_header(path)
    monkeypatch.undo()
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    with pytest.raises(UnreadableImageError, match=r"a\.png is truncated"):
        read_header(path)


def test_json_is_strict(tmp_path):
    data = {"a": [1, float("nan"), {"b": float("inf")}], "ü": 0.1}
    write_json(str(tmp_path / "a.json"), data)

    def reject(constant):
        raise AssertionError(constant)

    found = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"), parse_constant=reject)
    assert found == {"a": [1, None, {"b": None}], "ü": 0.1}
