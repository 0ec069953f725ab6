"""COCO-panoptic data sets, with instances and semantic maps derived from the panoptic PNGs.

Ids follow detectron2's "separated" convention: thing classes 0, 1, ...; semantic classes 0 for all
things, 1, 2, ... for stuff; 255 where nothing is annotated. H x W: image size.
"""

import itertools
from collections.abc import Iterable

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.colormap import colormap
from pycocotools import mask as coco_mask

from crbp_d2.utils.files import write_json

from ..images import is_file, read_json
from ..schema import has_lists, is_inside, whole_number
from .faults import Faults
from .reader import load_panoptic, segment_indices
from .schema import VOID, check_categories


def register_panoptic(
    name: str, panoptic_json: str, panoptic_root: str, image_root: str, *, instances_json: str | None = None
) -> None:
    """Register a COCO-panoptic data set for training and evaluation.

    Only the categories are read now, images and PNGs when the data set is used. A data set that is registered again
    with the same paths gets the classes that the JSON has now.

    Args:
        name: str, name in detectron2's catalogs.
        panoptic_json: str, annotations in COCO-panoptic format.
        panoptic_root: str, folder of the PNGs.
        image_root: str, folder of the images.
        instances_json: str, annotations in COCO-detection format for box and mask AP; derived from the PNGs if absent.

    Raises:
        FileNotFoundError: no file at `panoptic_json` or `instances_json`.
        ValueError: invalid categories, or `name` is registered with other paths.
    """
    for key, path in (("panoptic_json", panoptic_json), ("instances_json", instances_json)):
        if path is not None and not is_file(path):
            raise FileNotFoundError(f"register_panoptic({name!r}): no file at {key} {path!r}")
    metadata = panoptic_metadata(read_categories(panoptic_json), panoptic_json)
    if instances_json:
        metadata["json_file"] = instances_json
    register_with_metadata(name, panoptic_json, panoptic_root, image_root, metadata)


def read_categories(panoptic_json: str) -> list[dict]:
    """The categories of a COCO-panoptic JSON, for `panoptic_metadata`.

    Raises:
        FileNotFoundError: no such file.
        DatasetError: not in that format.
    """
    faults, data = Faults(panoptic_json), read_json(panoptic_json)
    has_lists(data, ("categories",), faults)
    faults.raise_harmful()
    return data["categories"]


def register_with_metadata(
    name: str, panoptic_json: str, panoptic_root: str, image_root: str, metadata: dict, prepare=lambda: None
) -> None:
    """Like register_panoptic with known metadata; `prepare` is called before the first file is read."""
    paths = {"panoptic_json": panoptic_json, "panoptic_root": panoptic_root, "image_root": image_root}
    free_registered(name, {**paths, "json_file": metadata.get("json_file")})

    def load() -> list[dict]:
        prepare()
        return load_panoptic(panoptic_json, panoptic_root, image_root, metadata)

    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(
        **paths, **metadata, evaluator_type="coco_panoptic_seg", ignore_label=VOID, label_divisor=1000
    )


def free_registered(name: str, paths: dict) -> None:
    """Free a name that is registered with the same paths.

    Raises:
        ValueError: the name is taken by another data set, or leaves the folder that results are written to.
    """
    if not is_inside(name):
        raise ValueError(f"the name {name!r} of a data set names a folder outside of the output folder; choose another")
    if name not in DatasetCatalog.list():
        return
    registered = {key: MetadataCatalog.get(name).get(key) for key in paths}
    free = f"DatasetCatalog.remove({name!r}) and MetadataCatalog.remove({name!r})"
    if registered != paths:
        raise ValueError(
            f"the name {name!r} is taken by a data set at {registered}; choose another, or free it: {free}"
        )
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def panoptic_metadata(categories: Iterable[dict], source: str = "categories") -> dict:
    """detectron2 metadata of COCO-panoptic categories ({id, name, isthing, color}; color may be absent).

    Ids are numbers from 0 or strings; there may be only things or only stuff.

    Raises:
        DatasetError: a missing key, a repeated id or name, or more stuff classes than a semantic map holds.
    """
    categories = list(categories)
    check_categories(categories, source).raise_harmful()
    categories.sort(key=lambda category: rank(category["id"]))
    ids = [category["id"] for category in categories]
    things = [category for category in categories if category["isthing"]]
    stuff = [category for category in categories if not category["isthing"]]
    palette = colormap(rgb=True).astype(int).tolist()

    def colors(of: list[dict]) -> list[list[int]]:
        return [list(c.get("color", palette[ids.index(c["id"]) % len(palette)])) for c in of]

    # The id of all things is one that no category has; detectron2 takes 0.
    all_things = next(number for number in itertools.count(0, -1) if number not in ids)
    return {
        "thing_classes": [c["name"] for c in things],
        "thing_colors": colors(things),
        "thing_dataset_id_to_contiguous_id": {c["id"]: i for i, c in enumerate(things)},
        "stuff_classes": ["things", *(c["name"] for c in stuff)],
        "stuff_colors": [[82, 18, 128], *colors(stuff)],
        "stuff_dataset_id_to_contiguous_id": {all_things: 0, **{c["id"]: i for i, c in enumerate(stuff, start=1)}},
    }


def rank(category_id: int | str) -> tuple:
    """Order of the classes: numbers, also those written as strings, then other strings."""
    number = whole_number(category_id)
    return (number is None, number or 0, str(category_id))


def write_instances_json(name: str, path: str) -> None:
    """Write the things of a registered data set in COCO-detection format, masks as RLE, for box and mask AP."""
    metadata = MetadataCatalog.get(name)
    dataset_ids = {v: k for k, v in metadata.thing_dataset_id_to_contiguous_id.items()}
    annotations, images = [], []
    for record in DatasetCatalog.get(name):
        images.append(
            {"id": record["image_id"], "height": record["height"], "width": record["width"],
             "file_name": record["file_name"].rsplit("/", 1)[-1]}
        )  # fmt: skip
        indices = segment_indices(record)
        for k, segment in enumerate(record["segments_info"], start=1):
            if not segment["isthing"]:
                continue
            rle = coco_mask.encode(np.asfortranarray(indices == k))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": record["image_id"],
                    "category_id": dataset_ids[segment["category_id"]],
                    "iscrowd": segment["iscrowd"],
                    "area": int(coco_mask.area(rle)),
                    "bbox": coco_mask.toBbox(rle).tolist(),
                    "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
                }
            )
    categories = [{"id": dataset_ids[i], "name": n} for i, n in enumerate(metadata.thing_classes)]
    write_json(path, {"info": {}, "images": images, "annotations": annotations, "categories": categories})
