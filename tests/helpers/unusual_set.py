"""Sets written for one case each, registered as "odd", and a model that knows their ground truth."""

import json

import cv2
import numpy as np
import torch
from detectron2.config import get_cfg
from detectron2.data import MetadataCatalog
from helpers.paths import ROOT

from crbp_d2 import add_crbp_config
from crbp_d2.data import PanopticDatasetMapper, register_panoptic
from crbp_d2.data.panoptic.png import encode_ids

THINGS, STUFF = ("cat", "dog"), ("sky", "sea")


def write(root, images, *, ids=(1, 2, 3, 4), image_ids=None, kinds=(1, 1, 0, 0), names=None):
    """A set of images, each a map of segment ids and {segment id: index of the category}."""
    categories = [
        {"id": i, "name": name, "isthing": kind}
        for i, name, kind in zip(ids, (*THINGS, *STUFF), kinds, strict=True)
        if kind is not None
    ]
    data = {"images": [], "annotations": [], "categories": categories}
    rng = np.random.default_rng(0)
    for k, (segments, classes) in enumerate(images):
        height, width = segments.shape
        name = names[k] if names else f"{k}.png"
        image_id = image_ids[k] if image_ids else k
        for kind in ("images", "panoptic"):
            (root / kind / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 255, (height, width, 3)).astype(np.uint8)
        (root / "images" / name).write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
        (root / "panoptic" / name).write_bytes(encode_ids(segments))
        infos = []
        for segment_id, c in classes.items():
            mask = segments == segment_id
            infos.append({"id": segment_id, "category_id": ids[c], "iscrowd": 0, "area": int(mask.sum()),
                          "bbox": list(cv2.boundingRect(mask.astype(np.uint8)))})  # fmt: skip
        data["images"].append({"id": image_id, "file_name": name, "height": height, "width": width})
        data["annotations"].append({"image_id": image_id, "file_name": name, "segments_info": infos})
    (root / "panoptic.json").write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
    register_panoptic("odd", str(root / "panoptic.json"), str(root / "panoptic"), str(root / "images"))


def scene(height=48, width=64):
    """Sky above sea, a cat and a dog."""
    segments = np.full((height, width), 3)
    segments[height // 2 :] = 4
    segments[height // 4 : height // 2, : width // 3] = 1
    segments[height // 2 : -4, width // 2 :] = 2
    return segments, {1: 0, 2: 1, 3: 2, 4: 3}


def config(root, *options):
    cfg = get_cfg()
    add_crbp_config(cfg)
    cfg.merge_from_file(str(ROOT / "configs/quick/panoptic_R18_crbp_toy.yaml"))
    metadata = MetadataCatalog.get("odd")
    cfg.merge_from_list([
        "MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", 0, "DATASETS.TRAIN", "('odd',)", "DATASETS.TEST", "('odd',)",
        "OUTPUT_DIR", str(root / "out"), "SOLVER.MAX_ITER", 2, "SOLVER.IMS_PER_BATCH", 2, "TEST.PICTURES", 2,
        "MODEL.RECURRENCE.STEPS", 2, "MODEL.RECURRENCE.NEUMANN.TERMS", 2,
        "MODEL.ROI_HEADS.NUM_CLASSES", max(len(metadata.thing_classes), 1),
        "MODEL.SEM_SEG_HEAD.NUM_CLASSES", len(metadata.stuff_classes), *options,
    ])  # fmt: skip
    return cfg


def perfect(record):
    """The output of a model that knows the ground truth."""
    mapped = PanopticDatasetMapper(is_train=True, augmentations=[], image_format="BGR")(record)
    instances, semantic = mapped["instances"], mapped["sem_seg"]
    ids, segments = torch.zeros_like(semantic), []
    for k in semantic.unique().tolist():
        if k not in (0, 255):
            segments.append({"id": len(segments) + 1, "isthing": False, "category_id": k})
            ids[semantic == k] = len(segments)
    for mask, k in zip(instances.gt_masks.tensor, instances.gt_classes.tolist(), strict=True):
        segments.append({"id": len(segments) + 1, "isthing": True, "category_id": k})
        ids[mask] = len(segments)
    return {"panoptic_seg": (ids, segments)}
