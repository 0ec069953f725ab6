"""Check of settings that need the compiled part of detectron2, which some packages of it lack."""

from importlib import import_module
from typing import Any

from detectron2.config import CfgNode

from crbp_d2.utils.imports import INSTALL

# Key -> names that need it.
NAMES = {
    "MODEL.PROPOSAL_GENERATOR.NAME": ("RRPN",),
    "MODEL.ROI_HEADS.NAME": ("RROIHeads",),
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": ("ROIAlignRotated",),
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": ("ROIAlignRotated",),
}
DEFORMABLE = "MODEL.RESNETS.DEFORM_ON_PER_STAGE"


def has_compiled_part() -> bool:
    """True if `detectron2._C` can be imported."""
    try:
        import_module("detectron2._C")
    except ImportError:
        return False
    return True


def check_compiled_part(cfg: CfgNode) -> None:
    """Check that a config does not need a missing compiled part.

    Raises:
        ValueError: names the key, its value and a remedy.
    """
    model = cfg.MODEL
    needed: dict[str, Any] = {}
    if any(model.RESNETS.DEFORM_ON_PER_STAGE) and "resnet" in model.BACKBONE.NAME:
        needed[DEFORMABLE] = list(model.RESNETS.DEFORM_ON_PER_STAGE)
    if model.META_ARCHITECTURE != "SemanticSegmentor":
        for key, names in NAMES.items():
            _, section, name = key.split(".")
            if model[section][name] in names:
                needed[key] = model[section][name]
    if not needed or has_compiled_part():
        return
    key, value = next(iter(needed.items()))
    other = f"{[False] * len(value)}" if key == DEFORMABLE else "a part without rotated boxes"
    raise ValueError(
        f"{key} is {value!r}, which needs detectron2._C, the compiled part that this detectron2 lacks: build it from "
        f"source with a C++ compiler, `pip install --no-build-isolation '{INSTALL['detectron2']}'`, or choose {other}"
    )
