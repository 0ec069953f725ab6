"""Checkpoints that survive kills, and weights that are loaded without running code from their file."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils import comm
from detectron2.utils.file_io import Detectron2Handler, PathManager
from iopath.common.file_io import get_cache_dir
from torch import nn

from crbp_d2.utils.files import write_atomically, write_text

from .reading import UnusableCheckpoint, load_pickle, load_tensors

LAST = "last_checkpoint"


class Checkpointer(DetectionCheckpointer):
    """detectron2's checkpointer, with atomic saves, safe loads and a resume that survives damaged files.

    Files of tensors are loaded by `weights_only`; a file whose name ends in .pkl by an unpickler for NumPy
    arrays only.

    Args:
        complete: `load` requires every parameter of the model in the file (for evaluation).
        others: see DetectionCheckpointer.
    """

    def __init__(self, model: nn.Module, save_dir: str = "", *, complete: bool = False, **others: Any):
        super().__init__(model, save_dir, **others)
        self.complete = complete
        self._path = ""

    def save(self, name: str, **extra: Any) -> None:
        """Write the checkpoint atomically.

        Raises:
            OSError: names the file; older checkpoints are as they were.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        states = {key: item.state_dict() for key, item in self.checkpointables.items()}
        content = {"model": self.model.state_dict(), **states, **extra}
        path = os.path.join(self.save_dir, f"{name}.pth")
        self.logger.info("Saving checkpoint to %s", path)
        write_atomically(path, lambda file: torch.save(content, file))
        self.tag_last_checkpoint(f"{name}.pth")

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        write_text(os.path.join(self.save_dir, LAST), last_filename_basename)

    def has_checkpoint(self) -> bool:
        """True if there is a checkpoint to resume from, damaged or not."""
        return has_checkpoint(self.save_dir)

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict:
        """Load the newest checkpoint of `save_dir` if `resume` and there is one, else the weights at `path`."""
        newest = self.get_checkpoint_file() if resume else ""
        return self.load(newest) if newest else self.load(path, checkpointables=[])

    def get_checkpoint_file(self) -> str:
        """The newest checkpoint that loads and is one of this model, "" without any; logs which newer ones it left.

        With several processes the main one chooses.

        Raises:
            UnusableCheckpoint: there are checkpoints, but none of them can be used; names each of them.
        """
        found: tuple[str, str] = ("", "")
        if comm.is_main_process():
            try:
                found = (self._newest(), "")
            except UnusableCheckpoint as error:
                found = ("", str(error))
        path, problem = comm.all_gather(found)[0]
        if problem:
            raise UnusableCheckpoint(problem)
        return path

    def _newest(self) -> str:
        left: dict[str, str] = {}
        for path in newest_first(self.save_dir, left):
            try:
                self._check_resumable(self._load_file(path), path)
            except UnusableCheckpoint as error:
                left[path] = str(error)
                continue
            for problem in left.values():
                self.logger.warning("Left aside: %s", problem)
            named = named_last(self.save_dir)
            if named != os.path.basename(path):
                self.logger.warning(
                    "%s names %r, but the newest checkpoint that loads is %s", LAST, named, os.path.basename(path)
                )
            return path
        if left:
            raise UnusableCheckpoint(
                f"no checkpoint in {self.save_dir} can be resumed from: {'; '.join(left.values())}. Restore an "
                "intact one, or start without --resume, which sets these aside"
            )
        return ""

    def _check_resumable(self, content: dict, path: str) -> None:
        if missing := [key for key in ("iteration", *self.checkpointables) if key not in content]:
            raise UnusableCheckpoint(f"{path} holds no state of a training ({', '.join(missing)} missing)")
        differences = list(_differences(self.model.state_dict(), content["model"]))
        if differences:
            raise UnusableCheckpoint(f"{path} is of another model: {_listed(differences)}")
        values = content["model"].items()
        if bad := [name for name, value in values if torch.is_tensor(value) and not value.isfinite().all()]:
            raise UnusableCheckpoint(f"{path} is of a training that diverged: {bad[0]} is not finite")

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict:
        """See DetectionCheckpointer.

        Raises:
            UnusableCheckpoint: a damaged or foreign file, weights of which none fits, or with `complete` not all.
        """
        self._path = path
        try:
            return super().load(path, *args, **kwargs)
        finally:
            # detectron2 leaves it set after an error, and then loads nothing more.
            self._parsed_url_during_load = None

    def _load_file(self, filename: str) -> dict:
        if self._parsed_url_during_load is None:
            self._parsed_url_during_load = urlparse(filename)  # type: ignore[assignment]
        try:
            if filename.endswith(".pkl"):
                content = _zoo_content(load_pickle(filename))
            elif filename.endswith(".pyth"):
                content = _pycls_content(load_tensors(filename), filename)
            else:
                content = super()._load_file(filename)
        finally:
            self._parsed_url_during_load = None
        parameters = content["model"]
        if not isinstance(parameters, dict) or not parameters:
            raise UnusableCheckpoint(f"{filename} holds no parameters under 'model'")
        for name, value in parameters.items():
            if not isinstance(value, torch.Tensor | np.ndarray):
                raise UnusableCheckpoint(
                    f"{filename} holds a {type(value).__name__} under {name!r}, where parameters are tensors"
                )
        return content

    def _torch_load(self, f: str) -> dict:
        content = load_tensors(f)
        if not isinstance(content, dict):
            raise UnusableCheckpoint(f"{f} holds a {type(content).__name__}, no dict of parameters")
        return content

    def _load_model(self, checkpoint: dict):
        incompatible = super()._load_model(checkpoint)
        names = self.model.state_dict().keys()
        if names and not names - incompatible.missing_keys:
            unexpected = [f"{name} is only in the file" for name in incompatible.unexpected_keys]
            raise UnusableCheckpoint(
                f"none of the parameters in {self._path} fits this model: "
                f"{_listed([*_shapes(incompatible), *unexpected])}"
            )
        if self.complete and incompatible.missing_keys:
            shapes = _shapes(incompatible)
            wrong = {key for key, *_ in incompatible.incorrect_shapes}
            absent = [f"{key} is missing in the file" for key in incompatible.missing_keys if key not in wrong]
            raise UnusableCheckpoint(
                f"{self._path} does not hold all parameters of this model: {_listed([*shapes, *absent])}"
            )
        return incompatible


def checkpoint_files(folder: str) -> list[str]:
    """Files of a folder that look like checkpoints."""
    if not folder or not os.path.isdir(folder):
        return []
    return sorted(str(path) for path in Path(folder).glob("*.pth") if path.is_file())


def has_checkpoint(folder: str) -> bool:
    """True if a folder has a checkpoint to resume from, damaged or not."""
    damaged: dict[str, str] = {}
    return bool(list(newest_first(folder, damaged)) or damaged)


def newest_first(folder: str, left: dict[str, str]) -> Iterator[str]:
    """Checkpoints by the iteration they hold, the latest first; `left` gets what is wrong with those not readable."""
    iterations = {}
    for path in checkpoint_files(folder):
        try:
            content = load_tensors(path, mmap=True)
        except (UnusableCheckpoint, OSError) as error:
            left[path] = str(error)
            continue
        iteration = content.get("iteration") if isinstance(content, dict) else None
        if isinstance(iteration, int):
            iterations[path] = iteration
        else:
            logging.getLogger(__name__).info("%s is no checkpoint of a training", path)
    yield from sorted(iterations, key=lambda path: (iterations[path], os.path.getmtime(path)), reverse=True)


def named_last(folder: str) -> str:
    """Content of the file `last_checkpoint`; "" if it cannot be read."""
    try:
        with open(os.path.join(folder, LAST), errors="replace") as file:
            return file.read(200).strip()
    except OSError:
        return ""


def _zoo_content(data: Any) -> dict:
    """As detectron2 lays them out: its own model zoo's, or those of Caffe2."""
    if not isinstance(data, dict):
        raise UnusableCheckpoint(f"a {type(data).__name__} in place of a dict of parameters")
    if "model" in data and "__author__" in data:
        return data
    blobs = data.get("blobs", data)
    blobs = {name: value for name, value in blobs.items() if not name.endswith("_momentum")}
    return {"model": blobs, "__author__": "Caffe2", "matching_heuristics": True}


def _pycls_content(data: Any, path: str) -> dict:
    if not isinstance(data, dict) or "model_state" not in data:
        raise UnusableCheckpoint(f"{path} holds no 'model_state', where files of pycls have their parameters")
    state = {name: value for name, value in data["model_state"].items() if not name.endswith("num_batches_tracked")}
    return {"model": state, "__author__": "pycls", "matching_heuristics": True}


def _differences(wanted: dict, found: dict) -> Iterator[str]:
    for name, value in wanted.items():
        if name not in found:
            yield f"{name} is missing in the file"
        elif (shape := tuple(getattr(found[name], "shape", ()))) != tuple(value.shape):
            yield f"{name} is {shape} in the file, {tuple(value.shape)} in the model"
    yield from (f"{name} is only in the file" for name in found if name not in wanted)


def _shapes(incompatible) -> list[str]:
    return [f"{key} is {file} in the file, {model} in the model" for key, file, model in incompatible.incorrect_shapes]


def _listed(texts: list[str], most: int = 3) -> str:
    rest = len(texts) - most
    return ", ".join(texts[:most]) + (f" and {rest} more" if rest > 0 else "")


def weights_in(folder: str) -> str:
    """The weights of a run to use: model_best.pth, model_ema.pth, model_final.pth, else the newest checkpoint.

    Raises:
        FileNotFoundError: the folder has none, or there is no such folder.
    """
    for name in ("model_best.pth", "model_ema.pth", "model_final.pth"):
        if os.path.isfile(os.path.join(folder, name)):
            return os.path.join(folder, name)
    newest = next(newest_first(folder, {}), "")
    if not newest:
        raise FileNotFoundError(f"{folder} holds no weights (model_final.pth or another checkpoint)")
    return newest


def check_weights(path: str, key: str = "MODEL.WEIGHTS") -> None:
    """Fetch `path` (a file, URL or detectron2:// name) into the local cache if it is not there yet.

    Args:
        key: key of the config that names it, for the message.

    Raises:
        FileNotFoundError: it cannot be fetched.
    """
    try:
        found = PathManager.isfile(PathManager.get_local_path(path))
        reason = "no such file"
    except (OSError, RuntimeError, ValueError) as error:
        found, reason = False, " ".join(str(error).split())
    if not found:
        raise FileNotFoundError(
            f"The weights {key} = {path!r} are missing ({reason}); `{key} ''` trains from random "
            "initialisation and `make demo` runs without any download."
        )


def is_cached(path: str) -> bool:
    """True if weights are on this machine: a file, or a URL or detectron2:// name that was fetched before."""
    url = path.replace(Detectron2Handler.PREFIX, Detectron2Handler.S3_DETECTRON2_PREFIX, 1)
    parts = urlparse(url)
    if not parts.scheme.startswith("http"):
        return os.path.isfile(path)
    return os.path.isfile(os.path.join(get_cache_dir(), parts.path.lstrip("/")))
