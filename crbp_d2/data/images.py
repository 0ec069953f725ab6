"""Image files: headers and pixels, with errors that name the file.

The EXIF orientation is applied, as in detectron2.
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

import numpy as np
from detectron2.data import detection_utils as utils
from detectron2.utils.file_io import PathManager
from PIL import Image, UnidentifiedImageError

EXIF_ORIENTATION = 274
# First bytes of a PNG, and place of its bits per channel: Pillow's mode is that of 8 bits for a PNG of 3 x 16.
PNG, BIT_DEPTH = b"\x89PNG\r\n\x1a\n", 24
# Modes of Pillow that become 8-bit RGB without loss of what a person sees.
READABLE = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")


@dataclass(frozen=True)
class Header:
    """The header of an image file.

    format: str, file format, for instance "PNG".
    mode: str, Pillow's mode.
    bits: int, bits per channel.
    size: width and height as stored.
    orientation: int, EXIF orientation; 1 is upright, from 5 on width and height are swapped.
    """

    format: str
    mode: str
    bits: int
    size: tuple[int, int]
    orientation: int

    @property
    def shown(self) -> tuple[int, int]:
        """Width and height after applying the orientation."""
        return self.size[::-1] if self.orientation >= 5 else self.size


class UnreadableImageError(ValueError):
    """An image file that cannot be decoded: truncated, damaged or not an image."""


@contextmanager
def decoding(path: str, content: bytes | None = None) -> Iterator[tuple[Image.Image, Header]]:
    """An image whose pixels are not decoded yet, and its header.

    Args:
        content: bytes of the file if it is in memory; `path` then only names it.

    Raises:
        FileNotFoundError: no such file.
        UnreadableImageError: names the file, whatever fails while it is open.
        ImageError: more pixels than Pillow's limit.
    """
    if content is None and not is_file(path):
        raise FileNotFoundError(f"there is no file {path}")
    with warnings.catch_warnings():
        # Large images are expected; callers check the header.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with opened(path) if content is None else io.BytesIO(content) as file:
                start = file.read(26)
                bits = None
                if start.startswith(PNG) and len(start) > BIT_DEPTH:
                    bits = start[BIT_DEPTH]
                    file.seek(0)
                    with Image.open(file) as image:
                        image.verify()  # the checksums, which Pillow ignores while decoding
                file.seek(0)
                with Image.open(file) as image:
                    yield image, _header(image, bits)
        except ImageError:
            raise
        except Image.DecompressionBombError as error:
            raise ImageError(
                f"{path} is too large: {one_line(error)}; set PIL.Image.MAX_IMAGE_PIXELS if you trust it"
            ) from error
        except Exception as error:  # Pillow's decoders raise whatever the bytes lead them to
            # The message of this one only names the file object.
            reason = "of no known format" if isinstance(error, UnidentifiedImageError) else one_line(error)
            raise UnreadableImageError(f"{path} is truncated, damaged or not an image: {reason}") from error


class ImageError(ValueError):
    """An intact image file that is not of the required size or kind."""


def _header(image: Image.Image, bits: int | None) -> Header:
    if bits is None:
        bits = {"1": 1, "I": 32, "F": 32}.get(image.mode, 16 if ";16" in image.mode else 8)
    try:
        orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:  # unreadable EXIF data are ignored, as in detectron2
        orientation = 1
    valid = isinstance(orientation, int) and 1 <= orientation <= 8
    return Header(image.format or "", image.mode, bits, image.size, orientation if valid else 1)


def read_header(path: str) -> Header:
    """The header of an image file. Raises like `decoding`."""
    with decoding(path) as (_, header):
        return header


def header_fault(header: Header, width: int, height: int, source: str = "its record") -> tuple[str, str] | None:
    """Kind and text of the reason why an image cannot be used, by its header; None for a usable one.

    Args:
        width, height: int, expected size.
        source: str, origin of that size, for the text.
    """
    if header.shown != (width, height):
        turned = f" by its EXIF orientation {header.orientation}" if header.size == (width, height) else ""
        shown = f"{header.shown[0]} x {header.shown[1]} px{turned}"
        kind = "orientation" if turned else "size"
        return kind, f"is {shown}, but {source} says {width} x {height} (width, height)"
    if header.bits > 8 or header.mode not in READABLE:
        return "bits", f"has {header.bits} bits a channel (mode {header.mode}); convert it to 8"
    return None


def check_header(header: Header, path: str, width: int, height: int, source: str = "its record") -> None:
    """Raise an ImageError that names the file if `header_fault` finds one, before any pixel is decoded."""
    if fault := header_fault(header, width, height, source):
        raise ImageError(f"{path} {fault[1]}")


def read_image(path: str, format: str, width: int, height: int, source: str = "its record") -> np.ndarray:
    """Pixels of an 8-bit image, H x W x C, as returned by detectron2's read_image.

    Args:
        format: str, one of detectron2's, for instance "BGR".
        width, height: int, required size.
        source: str, origin of that size, for the message.

    Raises:
        FileNotFoundError, UnreadableImageError, ImageError: name the file.
    """
    with decoding(path) as (image, header):
        check_header(header, path, width, height, source)
        return utils.convert_PIL_to_numpy(utils._apply_exif_orientation(image), format)


# White space after a JSON.
LONGEST_END = 4096


def local(path: str) -> str:
    """`path` for the operating system; names in data sets are UTF-8, whatever the locale."""
    if path.isascii() or sys.getfilesystemencoding().lower() == "utf-8":
        return path
    return os.fsdecode(path.encode("utf-8", "surrogateescape"))


def is_file(path: str) -> bool:
    return PathManager.isfile(local(path))


def is_folder(path: str) -> bool:
    return PathManager.isdir(local(path))


@contextmanager
def opened(path: str) -> Iterator[IO[bytes]]:
    """A file of a data set, open for reading."""
    with PathManager.open(local(path), "rb") as file:
        yield file


def read_json(path: str):
    """The content of a JSON file in UTF-8.

    Raises:
        FileNotFoundError: no such file.
        ValueError: names the file, which is a folder, unreadable, not UTF-8, truncated or not JSON.
    """
    path = str(path)
    if is_folder(path):
        raise ValueError(f"{path} is a folder, not a file of JSON")
    if not is_file(path):
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with opened(path) as file:
            size = file.seek(0, os.SEEK_END)
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
    """The message of an error without line breaks, or its name if it has none."""
    return " ".join(str(error).split()) or type(error).__name__
