"""Where weights are: in the folder of a run, in the cache of downloads, or nowhere."""

import os
from urllib.parse import urlparse

from detectron2.utils.file_io import Detectron2Handler, PathManager
from iopath.common.file_io import get_cache_dir

from .loading import newest_first


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
        key: of the config that names it, for the message.

    Raises:
        FileNotFoundError: it cannot be had.
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
    """Whether weights are on this machine: a file, or a URL or detectron2:// name that was fetched before."""
    url = path.replace(Detectron2Handler.PREFIX, Detectron2Handler.S3_DETECTRON2_PREFIX, 1)
    parts = urlparse(url)
    if not parts.scheme.startswith("http"):
        return os.path.isfile(path)
    return os.path.isfile(os.path.join(get_cache_dir(), parts.path.lstrip("/")))
