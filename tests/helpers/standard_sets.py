"""Two hand-made images each in the forms of Cityscapes and LVIS, under detectron2's own names."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import builtin, cityscapes_panoptic

HEIGHT, WIDTH = 48, 96
# In the order of drawing: label, id, number for training, instance, x, y, width, height.
SHAPES = (("road", 7, 0, None, 0, 0, 96, 48), ("sky", 23, 10, None, 0, 0, 96, 20), ("car", 26, 13, 0, 4, 16, 30, 20),
          ("car", 26, 13, 1, 60, 18, 28, 22), ("person", 24, 11, 0, 40, 14, 12, 30))  # fmt: skip


def write_cityscapes(root: Path) -> None:
    """root/cityscapes/{leftImg8bit,gtFine}/{train,val}/town, with panoptic annotations."""
    for split in ("train", "val"):
        content: dict = {"images": [], "annotations": [], "categories": _categories()}
        gt = root / "cityscapes/gtFine"
        images, targets = root / f"cityscapes/leftImg8bit/{split}/town", gt / split / "town"
        pngs = gt / f"cityscapes_panoptic_{split}"
        for folder in (images, targets, pngs):
            folder.mkdir(parents=True)
        for k in range(2):
            name = f"town_00000{k}_000019"
            _write_image(name, images, targets, pngs, content, shift=3 * k)
        (gt / f"cityscapes_panoptic_{split}.json").write_text(json.dumps(content))


def _write_image(name: str, images: Path, targets: Path, pngs: Path, content: dict, shift: int) -> None:
    shape = (HEIGHT, WIDTH)
    image, labels = np.zeros((*shape, 3), np.uint8), np.zeros(shape, np.uint8)
    train, instances = np.full(shape, 255, np.uint8), np.zeros(shape, np.uint16)
    objects = []
    for label, number, target, instance, x, y, width, height in SHAPES:
        x += 0 if instance is None else shift
        area = (slice(y, y + height), slice(x, x + width))
        image[area], labels[area], train[area] = (number, 5 * target, 100), number, target
        instances[area] = number if instance is None else number * 1000 + instance
        corners = [[x, y], [x + width - 1, y], [x + width - 1, y + height - 1], [x, y + height - 1]]
        objects.append({"label": label, "polygon": corners})
    cv2.imwrite(str(images / f"{name}_leftImg8bit.png"), image)
    for kind, values in (("labelIds", labels), ("labelTrainIds", train), ("instanceIds", instances)):
        cv2.imwrite(str(targets / f"{name}_gtFine_{kind}.png"), values)
    described = {"imgHeight": HEIGHT, "imgWidth": WIDTH, "objects": objects}
    (targets / f"{name}_gtFine_polygons.json").write_text(json.dumps(described))
    ids = instances.astype(int)
    png = np.stack([ids // 65536, ids // 256 % 256, ids % 256], axis=2).astype(np.uint8)
    cv2.imwrite(str(pngs / f"{name}_panoptic.png"), png)
    segments = [
        {"id": int(i), "category_id": int(i if i < 1000 else i // 1000), "iscrowd": 0, "area": int((ids == i).sum()),
         "bbox": [0, 0, WIDTH, HEIGHT]}
        for i in np.unique(ids)
    ]  # fmt: skip
    content["images"].append({"id": name, "file_name": f"{name}_leftImg8bit.png", "height": HEIGHT, "width": WIDTH})
    content["annotations"].append({"image_id": name, "file_name": f"{name}_panoptic.png", "segments_info": segments})


def _categories() -> list[dict]:
    return [
        {"id": category["id"], "name": category["name"], "isthing": category["isthing"], "color": category["color"]}
        for category in cityscapes_panoptic.CITYSCAPES_CATEGORIES
    ]


def write_lvis(root: Path) -> None:
    """root/lvis/lvis_v1_{train,val}.json and their images in root/coco."""
    (root / "lvis").mkdir()
    for split in ("train", "val"):
        folder = root / f"coco/{split}2017"
        folder.mkdir(parents=True)
        content: dict = {"images": [], "annotations": [], "categories": [
            {"id": k, "name": f"class_{k}", "frequency": "f", "image_count": 2, "instance_count": 2, "synset": "",
             "synonyms": [], "def": ""} for k in (3, 7)
        ]}  # fmt: skip
        for k in (1, 2):
            image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
            for n, (category, x) in enumerate(((3, 6), (7, 54))):
                image[10:40, x : x + 30] = 30 * category
                content["annotations"].append(
                    {"id": 2 * k + n, "image_id": k, "category_id": category, "area": 900, "bbox": [x, 10, 30, 30],
                     "segmentation": [[x, 10, x + 30, 10, x + 30, 40, x, 40]]}
                )  # fmt: skip
            cv2.imwrite(str(folder / f"{k}.png"), image)
            content["images"].append(
                {"id": k, "height": HEIGHT, "width": WIDTH, "coco_url": f"http://host/{split}2017/{k}.png",
                 "not_exhaustive_category_ids": [], "neg_category_ids": []}
            )  # fmt: skip
        (root / f"lvis/lvis_v1_{split}.json").write_text(json.dumps(content))


@contextmanager
def registered(root: Path) -> Iterator[None]:
    """Register detectron2's names of both below `root` while the context is open, as with DETECTRON2_DATASETS."""
    names = [name for name in DatasetCatalog.list() if name.startswith(("cityscapes_fine", "lvis_v"))]
    kept = {name: (DatasetCatalog[name], MetadataCatalog.get(name)) for name in names}

    def forget() -> None:
        for name in names:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)

    forget()
    try:
        builtin.register_all_cityscapes(str(root))
        cityscapes_panoptic.register_all_cityscapes_panoptic(str(root))
        builtin.register_all_lvis(str(root))
        yield
    finally:
        forget()
        for name, (load, metadata) in kept.items():
            DatasetCatalog.register(name, load)
            MetadataCatalog[name] = metadata
