"""Image files: what their headers say, and their pixels, with errors that name the file.

An orientation in the EXIF data is followed, as detectron2 does.
"""

import io
import json
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import cv2
import numpy as np
from detectron2.data import detection_utils as utils
from detectron2.utils.file_io import PathManager
from PIL import Image, UnidentifiedImageError

EXIF_ORIENTATION = 274
# Modes of Pillow that become 8-bit RGB without loss of what a person sees.
READABLE = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")


@dataclass(frozen=True)
class Header:
    """What an image file says of itself.

    format: of the file, for instance "PNG".
    mode: of Pillow.
    bits: of a channel.
    size: width and height as stored.
    orientation: of its EXIF data; 1 is upright, from 5 on width and height are swapped.
    """

    format: str
    mode: str
    bits: int
    size: tuple[int, int]
    orientation: int

    @property
    def shown(self) -> tuple[int, int]:
        """Width and height with the orientation followed."""
        return self.size[::-1] if self.orientation >= 5 else self.size


class UnreadableImageError(ValueError):
    """An image file that cannot be decoded: cut, garbled, or not an image."""


@contextmanager
def decoding(path: str, content: bytes | None = None) -> Iterator[tuple[Image.Image, Header]]:
    """An image whose pixels are not decoded yet, and its header.

    Args:
        content: of the file, where it is in memory; `path` then only names it.

    Raises:
        FileNotFoundError: no such file.
        UnreadableImageError: names the file, whatever goes wrong while it is open.
    """
    if content is None and not is_file(path):
        raise FileNotFoundError(f"there is no file {path}")
    with warnings.catch_warnings():
        # Large images are none of an attack: callers compare the header with the size that they expect.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with opened(path) if content is None else io.BytesIO(content) as file:
                bits = _bits_of_png(file.read(26))
                if bits is not None:
                    _check_sums(file)
                file.seek(0)
                with Image.open(file) as image:
                    yield image, _header(image, bits)
        except ImageError:
            raise
        except UnidentifiedImageError as error:  # names the file object
            raise UnreadableImageError(f"{path} is cut, garbled or no image that Pillow knows") from error
        except Exception as error:  # Pillow's decoders raise whatever the bytes lead them to
            raise UnreadableImageError(f"{path} is cut, garbled or no image: {one_line(error)}") from error


class ImageError(ValueError):
    """An image file that is whole, but is not what is needed."""


def _header(image: Image.Image, bits: int | None) -> Header:
    if bits is None:
        bits = {"1": 1, "I": 32, "F": 32}.get(image.mode, 16 if ";16" in image.mode else 8)
    try:
        orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:  # detectron2 does without EXIF data that cannot be read
        orientation = 1
    valid = isinstance(orientation, int) and 1 <= orientation <= 8
    return Header(image.format or "", image.mode, bits, image.size, orientation if valid else 1)


def _check_sums(file: IO[bytes]) -> None:
    """Check those of a PNG, which Pillow does not look at when it decodes."""
    file.seek(0)
    with Image.open(file) as image:
        image.verify()


def _bits_of_png(start: bytes) -> int | None:
    """Pillow reads a PNG of 3 x 16 bits as one of 3 x 8, so its mode does not tell."""
    return start[24] if start[:8] == b"\x89PNG\r\n\x1a\n" and len(start) > 24 else None


def read_header(path: str) -> Header:
    """The header of an image file. Raises like `decoding`."""
    with decoding(path) as (_, header):
        return header


def check_header(header: Header, path: str, width: int, height: int, source: str = "its record") -> None:
    """Check size and depth before any pixel is decoded.

    Raises:
        ImageError: names the file and both sizes, or the bits of a channel.
    """
    if header.shown != (width, height):
        rotated = header.size == (width, height)
        note = f" once its EXIF orientation {header.orientation} is followed" if rotated else ""
        raise ImageError(
            f"{path} is {header.shown[0]} x {header.shown[1]} px{note}, but {source} says {width} x {height} "
            "(width, height)"
        )
    if header.bits > 8 or header.mode not in READABLE:
        raise ImageError(f"{path} has {header.bits} bits a channel (mode {header.mode}); convert it to 8")


def read_image(path: str, format: str, width: int, height: int, source: str = "its record") -> np.ndarray:
    """Pixels of an 8-bit image, H x W x C, as detectron2's read_image gives them.

    Args:
        format: of detectron2, for instance "BGR".
        width, height: that the image must have.
        source: of that size, for the message.

    Raises:
        FileNotFoundError, UnreadableImageError, ImageError: name the file.
    """
    with decoding(path) as (image, header):
        check_header(header, path, width, height, source)
        return utils.convert_PIL_to_numpy(utils._apply_exif_orientation(image), format)


def encode_ids(ids: np.ndarray) -> bytes:
    """A panoptic PNG of H x W ids below 2^24."""
    channels = np.stack([ids // 65536, ids // 256 % 256, ids % 256], axis=2)  # as BGR
    return cv2.imencode(".png", channels.astype(np.uint8))[1].tobytes()


# White space after a JSON.
LONGEST_END = 4096


def local(path: str) -> str:
    """`path` as the operating system has to be given it; names of data sets are UTF-8 whatever the locale says."""
    if path.isascii() or sys.getfilesystemencoding().lower() == "utf-8":
        return path
    return os.fsdecode(path.encode("utf-8", "surrogateescape"))


def is_file(path: str) -> bool:
    return PathManager.isfile(local(path))


def is_folder(path: str) -> bool:
    return PathManager.isdir(local(path))


@contextmanager
def opened(path: str) -> Iterator[IO[bytes]]:
    """A file of a data set, to be read."""
    with PathManager.open(local(path), "rb") as file:
        yield file


def read_json(path: str, most_bytes: int | None = None):
    """What a UTF-8 file of JSON holds.

    Args:
        most_bytes: that the file may have; more are not read.

    Raises:
        FileNotFoundError: no such file.
        ValueError: one sentence that names the file: a folder, not readable, not UTF-8, cut, not JSON, too large.
    """
    path = str(path)
    if is_folder(path):
        raise ValueError(f"{path} is a folder, not a file of JSON")
    if not is_file(path):
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with opened(path) as file:
            size = file.seek(0, os.SEEK_END)
            if most_bytes is not None and size > most_bytes:
                raise ValueError(f"{path} is damaged: its {size:,} bytes are more than the {most_bytes:,} it can have")
            file.seek(max(0, size - LONGEST_END))
            # Before all of it is read: a file that was cut, or zeros where a disk was full.
            if not file.read().rstrip().endswith((b"}", b"]")):
                raise ValueError(f"{path} is damaged or is no JSON in UTF-8: it does not end in }} or ]")
            file.seek(0)
            content = file.read()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        return json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else one_line(error)
        raise ValueError(f"{path} is damaged or is no JSON in UTF-8: {reason}") from error


def one_line(error: Exception) -> str:
    """What an error says, without line breaks; its name where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
