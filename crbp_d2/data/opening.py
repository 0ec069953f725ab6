"""Opening the files of a data set: UTF-8 under any locale, errors of one sentence, memory bounded before reading."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from detectron2.utils.file_io import PathManager

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
