"""Imported first by every subpackage that needs detectron2, to fail with one clear sentence."""

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
