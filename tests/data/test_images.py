"""Image files: large and damaged images get different errors."""

import numpy as np
import pytest
from PIL import Image

from crbp_d2.data.images import ImageError, UnreadableImageError, read_header, read_image


def test_large_and_damaged_images_get_different_errors(tmp_path, monkeypatch):
    path = str(tmp_path / "a.png")
    Image.fromarray(np.zeros((30, 50, 3), np.uint8)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow warns from here on, and refuses twice as many
    assert read_image(path, "BGR", 50, 30).shape == (30, 50, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)
    with pytest.raises(ImageError, match=r"a\.png .*1500.*MAX_IMAGE_PIXELS"):
        read_header(path)
    monkeypatch.undo()
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    with pytest.raises(UnreadableImageError, match=r"a\.png is truncated"):
        read_header(path)
