"""Imported first by every subpackage that needs detectron2, to fail with one clear sentence."""

import warnings

from .imports import missing

try:
    import detectron2  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "detectron2":
        raise
    raise ModuleNotFoundError(
        f"{missing('detectron2')} (crbp_d2.recurrence and crbp_d2.cells need only torch)", name="detectron2"
    ) from None

with warnings.catch_warnings():
    # fvcore scripts functions as it is imported, of which current torch warns.
    warnings.filterwarnings("ignore", message=".torch.jit.script")
    import detectron2.layers  # noqa: F401
