"""Faults to put into a clean panoptic set of two images, each with the doctor's finding.

FAULTS: name -> (function that puts it into the set in a folder, its kind, image, and a part of its value).
"""

from helpers.panoptic_file_faults import FILE_FAULTS
from helpers.panoptic_json_faults import JSON_FAULTS

FAULTS = JSON_FAULTS | FILE_FAULTS


def arguments(root):
    return [str(root / "panoptic.json"), str(root / "panoptic"), str(root / "images")]


def flags(root):
    return [
        *("--panoptic-json", str(root / "panoptic.json"), "--panoptic-root", str(root / "panoptic")),
        *("--image-root", str(root / "images"), "--workers", "1"),
    ]
