"""Data sets that are named on the command line: registered, chosen, and their classes counted."""

import argparse
import logging
from dataclasses import dataclass, field

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from crbp_d2.data import register_instances, register_panoptic

PANOPTIC = ("NAME", "PANOPTIC_JSON", "PNG_ROOT", "IMAGE_ROOT")
COCO = ("NAME", "JSON", "IMAGE_ROOT")


@dataclass
class _Settings:
    """Keys that the data decide, unless the command line does; `reasons` are for the log."""

    cfg: CfgNode
    given: set[str]
    reasons: list[str] = field(default_factory=list)

    def set(self, key: str, value: object, reason: str) -> None:
        *path, last = key.split(".")
        node = self.cfg
        for part in path:
            node = node[part]
        if key not in self.given and node[last] != value:
            node[last] = value
            self.reasons.append(f"{key} is {value!r}: {reason}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--register", action="append", default=[], nargs=4, metavar=PANOPTIC,
        help="a COCO-panoptic data set of your own; repeatable: the first one trains, the others are evaluated on",
    )  # fmt: skip
    parser.add_argument(
        "--register-coco", action="append", default=[], nargs=3, metavar=COCO,
        help="likewise instances in COCO's format",
    )  # fmt: skip


def register_from(args: argparse.Namespace, cfg: CfgNode) -> None:
    """Register what `--register` and `--register-coco` name, and set data sets and class counts in `cfg`.

    Keys on the command line win. Without DATASETS.TRAIN there the first data set trains and the others, or the only
    one, are evaluated on. Data without stuff turn a PanopticFPN into detectron2's GeneralizedRCNN. `args.choices` gets
    what was chosen and why.

    Raises:
        FileNotFoundError, ValueError: of the data; a name that is taken.
    """
    panoptic, coco = getattr(args, "register", []), getattr(args, "register_coco", [])
    if not panoptic and not coco:
        return
    if panoptic and coco:
        raise ValueError("--register and --register-coco name data sets of two kinds; a run takes one kind")
    if cfg.MODEL.KEYPOINT_ON:
        raise ValueError(
            "MODEL.KEYPOINT_ON is True, but data sets of the command line have no names of keypoints, nor what a flip "
            "swaps: register them in Python, or set it to False"
        )
    for name, panoptic_json, png_root, image_root in panoptic:
        register_panoptic(name, panoptic_json, png_root, image_root)
    for name, instances_json, image_root in coco:
        register_instances(name, instances_json, image_root)
    names = [entry[0] for entry in (*panoptic, *coco)]
    settings = _Settings(cfg, {str(key) for key in args.opts[::2]})
    reason = f"{'--register' if panoptic else '--register-coco'} comes first with it"
    settings.set("DATASETS.TRAIN", (names[0],), reason)
    settings.set("DATASETS.TEST", tuple(names[1:] or names), "the data sets after it" if names[1:] else "the only one")
    metadata = MetadataCatalog.get(names[0])
    things, stuff = len(metadata.get("thing_classes") or ()), len(metadata.get("stuff_classes") or ())
    if things:
        settings.set("MODEL.ROI_HEADS.NUM_CLASSES", things, f"thing classes of {names[0]}")
        settings.set("MODEL.RETINANET.NUM_CLASSES", things, f"thing classes of {names[0]}")
    if stuff:
        settings.set("MODEL.SEM_SEG_HEAD.NUM_CLASSES", stuff, f"stuff classes of {names[0]}, and one for all things")
    if coco and cfg.MODEL.META_ARCHITECTURE.endswith("PanopticFPN"):
        settings.set("MODEL.META_ARCHITECTURE", "GeneralizedRCNN", f"{names[0]} has no stuff")
    args.choices = settings.reasons


def log_choices(args: argparse.Namespace) -> None:
    """Log the keys that `register_from` set, once there is a log."""
    for text in getattr(args, "choices", ()):
        logging.getLogger(__name__).info(text)
