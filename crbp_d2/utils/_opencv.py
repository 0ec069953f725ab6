"""Imported first by every subpackage that needs OpenCV, to fail with one clear sentence."""

from .imports import missing

try:
    import cv2  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(missing("cv2"), name="cv2") from error
