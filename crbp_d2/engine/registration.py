"""Data sets of the command line: register them, and set the keys that follow from them."""

import argparse
import logging

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from crbp_d2.config_file import value_of
from crbp_d2.data import register_instances, register_panoptic

PANOPTIC = ("NAME", "PANOPTIC_JSON", "PNG_ROOT", "IMAGE_ROOT")
COCO = ("NAME", "JSON", "IMAGE_ROOT")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--register", action="append", default=[], nargs=4, metavar=PANOPTIC,
        help="a COCO-panoptic data set of your own; repeatable: the first one trains, the others are evaluated on",
    )  # fmt: skip
    parser.add_argument(
        "--register-coco", action="append", default=[], nargs=3, metavar=COCO,
        help="likewise instances in COCO's format",
    )  # fmt: skip


def register_from(args: argparse.Namespace) -> None:
    """Register the data sets of `--register` and `--register-coco`, as each process must.

    Raises:
        FileNotFoundError, ValueError: invalid data, a name that is taken, or sets of both kinds.
    """
    panoptic, coco = getattr(args, "register", []), getattr(args, "register_coco", [])
    if panoptic and coco:
        raise ValueError("--register and --register-coco name data sets of two kinds; a run takes one kind")
    for name, panoptic_json, png_root, image_root in panoptic:
        register_panoptic(name, panoptic_json, png_root, image_root)
    for name, instances_json, image_root in coco:
        register_instances(name, instances_json, image_root)


def choose_settings(args: argparse.Namespace, cfg: CfgNode) -> None:
    """Set data sets and class counts in `cfg` by the registered data sets; keys on the command line win.

    Without DATASETS.TRAIN there the first data set trains and the others, or the only one, are evaluated on. Data
    without stuff turn a PanopticFPN into detectron2's GeneralizedRCNN. Appends each choice and its reason to
    `args.choices`, for the log.

    Raises:
        ValueError: a model of keypoints, which such data sets cannot describe.
    """
    coco = bool(getattr(args, "register_coco", []))
    names = [entry[0] for entry in (*getattr(args, "register", []), *getattr(args, "register_coco", []))]
    if not names:
        return
    if cfg.MODEL.KEYPOINT_ON:
        raise ValueError(
            "MODEL.KEYPOINT_ON is True, but data sets of the command line have no names of keypoints, nor what a flip "
            "swaps: register them in Python, or set it to False"
        )
    given = {str(key) for key in args.opts[::2]}

    def choose(key: str, value: object, reason: str) -> None:
        section, _, name = key.rpartition(".")
        node = value_of(cfg, section)
        if key not in given and node[name] != value:
            node[name] = value
            args.choices.append(f"{key} is {value!r}: {reason}")

    flag = "--register-coco" if coco else "--register"
    choose("DATASETS.TRAIN", (names[0],), f"the first {flag}")
    choose("DATASETS.TEST", tuple(names[1:] or names), "the data sets after it" if names[1:] else "the only one")
    things, _ = class_counts(names[0])
    stuff = len(MetadataCatalog.get(names[0]).get("stuff_classes") or ())
    if things:
        choose("MODEL.ROI_HEADS.NUM_CLASSES", things, f"thing classes of {names[0]}")
        choose("MODEL.RETINANET.NUM_CLASSES", things, f"thing classes of {names[0]}")
    if stuff:
        choose("MODEL.SEM_SEG_HEAD.NUM_CLASSES", stuff, f"stuff classes of {names[0]}, and one for all things")
    if coco and cfg.MODEL.META_ARCHITECTURE.endswith("PanopticFPN"):
        choose("MODEL.META_ARCHITECTURE", "GeneralizedRCNN", f"{names[0]} has no stuff")


def class_counts(name: str) -> tuple[int, int]:
    """Numbers of thing and stuff classes of a data set, without the stuff class for all things."""
    metadata = MetadataCatalog.get(name)
    stuff = metadata.get("stuff_classes") or ()
    return len(metadata.get("thing_classes") or ()), len(stuff) - (list(stuff[:1]) == ["things"])


def log_choices(args: argparse.Namespace) -> None:
    """Log `args.choices`, once there is a log."""
    for text in getattr(args, "choices", ()):
        logging.getLogger(__name__).info(text)
