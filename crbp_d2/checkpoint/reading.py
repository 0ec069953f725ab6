"""Files of weights, read without running code from them."""

import pickle
import zipfile
from typing import Any

import numpy as np
import torch
from detectron2.utils.file_io import PathManager

# Globals in the pickles of detectron2's model zoo; none of these runs code of the file.
SAFE_GLOBALS = {
    ("collections", "OrderedDict"),
    ("_codecs", "encode"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
}


class UnusableCheckpoint(ValueError):
    """A file that cannot be loaded; the message names it and says why."""


def load_tensors(path: str, mmap: bool = False) -> Any:
    """torch.load by `weights_only` onto the CPU.

    Args:
        mmap: read tensors, and check their bytes, only when they are used.

    Raises:
        UnusableCheckpoint: a damaged or empty file, or one that only loads by running its code.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        if not file.read(1):
            raise UnusableCheckpoint(f"{path} is empty")
    # Files of torch before 1.6 are not zip archives.
    archive = zipfile.is_zipfile(path)
    try:
        if archive and not mmap:
            _check_sums(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=archive and mmap)
    except UnusableCheckpoint:
        raise
    except pickle.UnpicklingError as error:
        raise UnusableCheckpoint(
            f"{path} is damaged, or holds more than tensors and plain values: {_first_sentence(error)}"
        ) from error
    except Exception as error:
        # Readers answer damage by errors of every kind.
        detail = _first_sentence(error) if archive else "it is cut, or no file of torch"
        raise UnusableCheckpoint(f"{path} is damaged: {detail}") from error


def _check_sums(path: str) -> None:
    """Compare the records of an archive with their check sums, which torch writes but does not read."""
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():
            raise UnusableCheckpoint(f"{path} is damaged: {damaged} in it has another check sum than was written")


def load_pickle(path: str) -> Any:
    """Content of a pickle of NumPy arrays and plain values (detectron2's .pkl).

    Raises:
        UnusableCheckpoint: a damaged file, or one that holds anything else.
    """
    try:
        with PathManager.open(path, "rb") as file:
            return _ArrayUnpickler(file, encoding="latin1").load()
    except (UnusableCheckpoint, OSError):
        raise
    except Exception as error:
        raise UnusableCheckpoint(f"{path} cannot be loaded as a pickle of arrays: {_first_sentence(error)}") from error


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in SAFE_GLOBALS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which a file of arrays does not need")
        if hasattr(np, "_core"):
            # The name before NumPy 2 still works, but warns.
            module = module.replace("numpy.core.", "numpy._core.")
        return super().find_class(module, name)


def _first_sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].split(". ")[0] if lines else type(error).__name__
