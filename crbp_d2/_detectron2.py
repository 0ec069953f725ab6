"""Imported first by every subpackage that needs detectron2, to fail with one clear sentence."""

import warnings

try:
    import detectron2  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "detectron2":
        raise
    raise ModuleNotFoundError(
        "crbp_d2 needs detectron2 for this part (crbp_d2.recurrence and crbp_d2.cells do not): run `make install` "
        "in crbp_d2's folder, or install it from https://github.com/facebookresearch/detectron2.",
        name="detectron2",
    ) from None

with warnings.catch_warnings():
    # fvcore scripts functions as it is imported, which torch of today has a word about.
    warnings.filterwarnings("ignore", message=".torch.jit.script")
    import detectron2.layers  # noqa: F401
