"""Files that are written atomically: a kill or a full disk leaves the old file or the new one."""

import contextlib
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast


def write_atomically(path: str | Path, write: Callable[[BinaryIO], object]) -> None:
    """Have `write` fill a temporary file, which then replaces `path`; both survive a loss of power.

    Raises:
        OSError: names `path`. The file that was there before is still there.
    """
    partial = f"{path}.partial"
    try:
        with open(partial, "wb") as file:
            recorder = _Recorder(file)
            try:
                write(cast(BinaryIO, recorder))
            except Exception as error:
                # What writes may report a full disk by an error of its own.
                raise (recorder.error or error) from error
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync_folder(Path(path).parent)
    except OSError as error:
        _remove(partial)
        raise type(error)(error.errno, error.strerror or str(error), str(path)) from error
    except BaseException:
        _remove(partial)
        raise


class _Recorder:
    """A binary file that remembers the first OSError of a write."""

    def __init__(self, file: BinaryIO):
        self.file = file
        self.error: OSError | None = None

    def write(self, data) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = self.error or error
            raise

    def __getattr__(self, name: str):
        return getattr(self.file, name)


def _remove(path: str) -> None:
    # It was never created, or the disk is gone: the error that is being raised says why.
    with contextlib.suppress(OSError):
        os.remove(path)


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` last; where folders cannot be opened (Windows), there is nothing to do."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        # Some network file systems sync no folders.
        pass
    finally:
        os.close(descriptor)


def inside(folder: str | Path, name: str, what: str) -> str:
    """The path of `name` below a folder.

    Args:
        what: noun phrase for `name`, for the message.

    Raises:
        ValueError: `name` leads out of the folder.
    """
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"{what} is {name!r}, which leads out of {folder}: choose another without '..' or a root")
    return os.path.join(folder, name)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically, as UTF-8."""
    write_atomically(path, lambda file: file.write(text.encode()))


def write_json(path: str | Path, content: Any, **settings: Any) -> None:
    """Write strict JSON atomically: null for a number that is not finite.

    Args:
        settings: keyword arguments for json.dumps.
    """
    try:
        text = json.dumps(content, allow_nan=False, **settings)
    except ValueError:
        text = json.dumps(_finite(content), allow_nan=False, **settings)
    write_text(path, text + "\n")


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def write_figure(path: str | Path, figure, dpi: int = 120) -> None:
    """Write a figure of matplotlib atomically, as PNG."""
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=dpi))
