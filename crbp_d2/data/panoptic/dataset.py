"""COCO-panoptic data sets, with instances and semantic maps derived from the panoptic PNGs.

Ids follow detectron2's "separated" convention: thing classes 0, 1, ...; semantic classes 0 for all
things, 1, 2, ... for stuff; 255 where nothing is annotated. H x W: image size.
"""

import json
from collections.abc import Iterable

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data import detection_utils as utils
from detectron2.structures import BoxMode
from detectron2.utils.colormap import colormap
from detectron2.utils.file_io import PathManager
from panopticapi.utils import rgb2id
from pycocotools import mask as coco_mask

VOID = 255


def register_panoptic(
    name: str, panoptic_json: str, panoptic_root: str, image_root: str, *, instances_json: str | None = None
) -> None:
    """Make a COCO-panoptic data set trainable and evaluable under `name`.

    Only the categories are read now, images and PNGs when the data set is used.

    Args:
        panoptic_json: annotations in COCO-panoptic format.
        panoptic_root: folder of the PNGs.
        image_root: folder of the images.
        instances_json: annotations in COCO-detection format for box and mask AP; derived from the PNGs if absent.

    Raises:
        FileNotFoundError: no file at `panoptic_json`.
        ValueError: categories that cannot be used, or `name` is registered with other arguments.
    """
    if not PathManager.isfile(panoptic_json):
        raise FileNotFoundError(f"register_panoptic({name!r}): no file at panoptic_json {panoptic_json!r}")
    with PathManager.open(panoptic_json) as file:
        categories = json.load(file)["categories"]
    metadata = panoptic_metadata(categories, panoptic_json)
    if instances_json:
        metadata["json_file"] = instances_json
    register_with_metadata(name, panoptic_json, panoptic_root, image_root, metadata)


def register_with_metadata(
    name: str, panoptic_json: str, panoptic_root: str, image_root: str, metadata: dict, prepare=lambda: None
) -> None:
    """Like register_panoptic for metadata that is known; `prepare` is called before the first file is read."""
    paths = {"panoptic_json": panoptic_json, "panoptic_root": panoptic_root, "image_root": image_root}
    if name in DatasetCatalog.list():
        registered = {key: getattr(MetadataCatalog.get(name), key, None) for key in paths}
        if registered != paths:
            raise ValueError(
                f"the name {name!r} is taken by a data set at {registered}; choose another, or free it with "
                f"DatasetCatalog.remove({name!r}) and MetadataCatalog.remove({name!r})"
            )
        return

    def load() -> list[dict]:
        prepare()
        return load_panoptic(panoptic_json, panoptic_root, image_root, metadata)

    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(
        **paths, **metadata, evaluator_type="coco_panoptic_seg", ignore_label=VOID, label_divisor=1000
    )


def panoptic_metadata(categories: Iterable[dict], source: str = "categories") -> dict:
    """detectron2 metadata of COCO-panoptic categories ({id, name, isthing, color}; color may be absent).

    Raises:
        ValueError: no thing, no stuff, a repeated id, or more stuff classes than a semantic map holds.
    """
    categories = sorted(categories, key=lambda category: category["id"])
    ids = [category["id"] for category in categories]
    things = [category for category in categories if category["isthing"]]
    stuff = [category for category in categories if not category["isthing"]]
    if len(set(ids)) < len(ids):
        raise ValueError(f"{source}: the category id {next(i for i in ids if ids.count(i) > 1)} occurs more than once")
    if not things or not stuff or len(stuff) >= VOID:
        raise ValueError(
            f"{source}: {len(things)} thing and {len(stuff)} stuff categories; at least one of each is needed, "
            f"and fewer than {VOID} of stuff"
        )
    palette = colormap(rgb=True).astype(int).tolist()

    def colors(of: list[dict]) -> list[list[int]]:
        return [list(c.get("color", palette[ids.index(c["id"]) % len(palette)])) for c in of]

    return {
        "thing_classes": [c["name"] for c in things],
        "thing_colors": colors(things),
        "thing_dataset_id_to_contiguous_id": {c["id"]: i for i, c in enumerate(things)},
        "stuff_classes": ["things", *(c["name"] for c in stuff)],
        "stuff_colors": [[82, 18, 128], *colors(stuff)],
        # Dataset id 0, which no category has, stands for all things.
        "stuff_dataset_id_to_contiguous_id": {0: 0, **{c["id"]: i for i, c in enumerate(stuff, start=1)}},
    }


def load_panoptic(panoptic_json: str, panoptic_root: str, image_root: str, metadata: dict) -> list[dict]:
    """Dataset dicts in detectron2's format.

    Beside the usual keys each has `pan_seg_file_name`, `segments_info` (contiguous `category_id`,
    `isthing`, `iscrowd`, `id`) and, for things, `annotations` without masks: those are read from the
    PNG when they are needed.

    Raises:
        FileNotFoundError: an image or PNG that the JSON names is not there.
        ValueError: an annotation of no image, a second one of an image, or an unknown category.
    """
    with PathManager.open(panoptic_json) as file:
        data = json.load(file)
    images = {image["id"]: image for image in data["images"]}
    present = {folder: set(PathManager.ls(folder)) for folder in (image_root, panoptic_root)}
    records, seen = [], set()
    for annotation in data["annotations"]:
        image_id = annotation["image_id"]
        if image_id not in images or image_id in seen:
            problem = "a second time" if image_id in seen else "but has no such image"
            raise ValueError(f"{panoptic_json}: annotates image {image_id} {problem}")
        seen.add(image_id)
        image = images[image_id]
        for folder, file_name in ((image_root, image["file_name"]), (panoptic_root, annotation["file_name"])):
            if file_name not in present[folder] and not PathManager.isfile(f"{folder}/{file_name}"):
                raise FileNotFoundError(f"{panoptic_json} names {file_name}, which is not in {folder}")
        segments = [_contiguous(s, metadata, panoptic_json, image_id) for s in annotation["segments_info"]]
        records.append(
            {
                "file_name": f"{image_root}/{image['file_name']}",
                "image_id": image_id,
                "height": image["height"],
                "width": image["width"],
                "pan_seg_file_name": f"{panoptic_root}/{annotation['file_name']}",
                "segments_info": segments,
                "annotations": [
                    {
                        "bbox": segment["bbox"],
                        "bbox_mode": BoxMode.XYWH_ABS,
                        "category_id": segment["category_id"],
                        "iscrowd": segment["iscrowd"],
                    }
                    for segment in segments
                    if segment["isthing"]
                ],
            }
        )
    return records


def _contiguous(segment: dict, metadata: dict, source: str, image_id) -> dict:
    dataset_id = segment["category_id"]
    isthing = dataset_id in metadata["thing_dataset_id_to_contiguous_id"]
    ids = metadata[f"{'thing' if isthing else 'stuff'}_dataset_id_to_contiguous_id"]
    if dataset_id not in ids or dataset_id == 0:
        raise ValueError(f"{source}: a segment of image {image_id} has the category {dataset_id}, which is not listed")
    return {
        "id": segment["id"],
        "category_id": ids[dataset_id],
        "isthing": isthing,
        "iscrowd": segment.get("iscrowd", 0),
        "bbox": segment["bbox"],
    }


def segment_indices(record: dict) -> np.ndarray:
    """H x W: k + 1 where segment k of `segments_info` is, 0 where none is; uint8, or int32 for many segments.

    Raises:
        ValueError: the PNG's size is not the image's, or its segments are not those of the JSON.
    """
    ids = rgb2id(utils.read_image(record["pan_seg_file_name"], "RGB")).astype(np.int64)
    expected = (record["height"], record["width"])
    if ids.shape != expected:
        raise ValueError(
            f"{record['pan_seg_file_name']} is {ids.shape[1]} x {ids.shape[0]} px, but the JSON says "
            f"{expected[1]} x {expected[0]} for its image"
        )
    segments = record["segments_info"]
    listed = np.array([0, *(segment["id"] for segment in segments)], dtype=np.int64)
    found, inverse = np.unique(ids, return_inverse=True)
    unknown = np.setdiff1d(found, listed)
    missing = np.setdiff1d(listed[1:], found)
    if len(unknown) or len(missing):
        raise ValueError(
            f"{record['pan_seg_file_name']} does not fit the JSON: segments only in the PNG {unknown.tolist()[:5]}, "
            f"only in the JSON {missing.tolist()[:5]}"
        )
    order = {segment_id: index for index, segment_id in enumerate(listed.tolist())}
    table = np.array([order[i] for i in found.tolist()], dtype=np.uint8 if len(listed) <= 256 else np.int32)
    return table[inverse].reshape(expected)


def semantic_table(segments_info: list[dict]) -> np.ndarray:
    """Semantic class of each value of `segment_indices`, uint8."""
    classes = [0 if segment["isthing"] else segment["category_id"] for segment in segments_info]
    return np.array([VOID, *classes], dtype=np.uint8)


def semantic_map(record: dict) -> np.ndarray:
    """H x W uint8: the semantic class of each pixel."""
    return semantic_table(record["segments_info"])[segment_indices(record)]


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
    with PathManager.open(path, "w") as file:
        json.dump({"info": {}, "images": images, "annotations": annotations, "categories": categories}, file)
