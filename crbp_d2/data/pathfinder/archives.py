"""Reading an archive of Pathfinder stimuli, whatever happened to it: the stimulus, or one sentence with the file.

An archive holds at most PER_FILE stimuli, each as two grey PNGs, the image `000123.png` and the target
`000123_target.png` (255 on the target), uncompressed by the archive itself, so that any is read at once.
"""

import os
import zipfile
from functools import lru_cache

import numpy as np

from ..images import ImageError, decoding
from ..opening import one_line

PER_FILE = 500
# Side of a stimulus whose record does not tell it.
MOST_PIXELS = 4096
# Of a PNG beside its pixels, of an archive's entry, and of what an archive may have at its end.
BESIDE_PIXELS, BESIDE_PNG, AT_THE_END = 4096, 1024, 2**17


def image_name(number: int) -> str:
    return f"{number:06d}.png"


def target_name(number: int) -> str:
    return f"{number:06d}_target.png"


def read_stimulus(path: str, number: int, size: tuple[int, int] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Image and target (0 or 1) of one stimulus, each uint8, H x W.

    Memory is that of one stimulus, whatever the archive claims to hold.

    Args:
        size: (H, W) that the stimulus must have.

    Raises:
        FileNotFoundError: no such archive.
        ValueError: names an archive that is damaged or not one of ours.
    """
    try:
        archive = _open_archive(path, os.getpid(), _most_bytes(size))
        image, target = (_read(archive, name, size) for name in (image_name(number), target_name(number)))
        if image.shape != target.shape:
            raise ValueError(f"the image is {image.shape}, but its target {target.shape} px")
        if not np.isin(target, (0, 255)).all():
            raise ValueError("its target has other values than 0 and 255")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no file {path}") from error
    except Exception as error:  # zipfile raises whatever the bytes lead it to
        raise ValueError(
            f"{path} is damaged or holds no stimulus {number}: {one_line(error)}; delete it and run the generator again"
        ) from error
    return image, (target > 0).astype(np.uint8)


def _most_bytes(size: tuple[int, int] | None) -> int:
    """Of a PNG of this size, which is no longer than its pixels, a byte a row and what stands around them."""
    height, width = size or (MOST_PIXELS, MOST_PIXELS)
    return height * (width + 1) * 101 // 100 + BESIDE_PIXELS


@lru_cache(maxsize=256)
def _open_archive(path: str, process: int, most_bytes: int) -> zipfile.ZipFile:
    # Opened anew in each process: forked ones would share the position in the file.
    if not os.path.isfile(path) and os.path.exists(path):
        raise ValueError("it is no file")
    # zipfile reads the table of contents as a whole, which may take up all of the file.
    most = 2 * PER_FILE * (most_bytes + BESIDE_PNG) + AT_THE_END
    if os.path.getsize(path) > most:
        raise ValueError(f"its {os.path.getsize(path):,} bytes are more than the {most:,} that it can have")
    return zipfile.ZipFile(path)


def _read(archive: zipfile.ZipFile, name: str, size: tuple[int, int] | None) -> np.ndarray:
    most_bytes, entry = _most_bytes(size), archive.getinfo(name)
    # Other methods decompress as much as there is at once.
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is compressed by method {entry.compress_type}")
    if entry.file_size > most_bytes:
        raise ValueError(f"{name} claims {entry.file_size:,} bytes, more than the {most_bytes:,} that it can have")
    with archive.open(entry) as file:
        content = file.read(most_bytes + 1)
    with decoding(name, content) as (image, header):
        largest = size or (MOST_PIXELS, MOST_PIXELS)
        height, width = header.size[::-1]
        if (size and (height, width) != size) or height > largest[0] or width > largest[1]:
            raise ImageError(f"{name} is {width} x {height} px, but its record says {largest[1]} x {largest[0]}")
        if (header.format, header.mode, header.bits) != ("PNG", "L", 8):
            raise ImageError(f"{name} is a {header.format} of {header.bits} bits and mode {header.mode}, no grey PNG")
        return np.array(image)
