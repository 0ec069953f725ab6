"""Predictions in the forms that COCO's test servers and programs take."""

import itertools
import os
from collections.abc import Container
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from detectron2.data import Metadata
from detectron2.evaluation.coco_evaluation import instances_to_coco_json

from crbp_d2.data.images import read_json
from crbp_d2.data.panoptic.png import encode_ids
from crbp_d2.data.schema import is_id
from crbp_d2.utils.files import write_atomically, write_json

INSTANCES = "coco_instances_results.json"
PANOPTIC = "panoptic_predictions"
SEMANTIC = "semantic_predictions"
IMAGES = "images.json"


def unused(stem: str, names: Container[str]) -> str:
    """`stem`, or with the first number from 2 that makes it none of `names`."""
    candidates = itertools.chain([stem], (f"{stem}_{k}" for k in itertools.count(2)))
    return next(name for name in candidates if name not in names)


def read_image_info(path: str) -> dict[tuple[str, ...], int | str]:
    """Ids of the images in a COCO JSON, by the parts of their file names.

    Raises:
        FileNotFoundError, ValueError: name the file, and the entry that has no file name or id, or one given before.
    """
    content = read_json(path)
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list):
        raise ValueError(f"{path} has no list of `images`, as COCO's image_info files do")
    ids: dict[tuple[str, ...], int | str] = {}
    for k, image in enumerate(images):
        name, number = (image.get(key) if isinstance(image, dict) else None for key in ("file_name", "id"))
        parts = PurePosixPath(name).parts if isinstance(name, str) else ()
        if not (parts and is_id(number)):
            raise ValueError(f"{path}: images[{k}] needs a `file_name` and an `id`, got {name!r} and {number!r}")
        if parts in ids:
            raise ValueError(f"{path}: images[{k}] repeats the file_name {name!r}")
        ids[parts] = number
    if len(set(ids.values())) < len(ids):
        raise ValueError(f"{path} gives several of its `images` the same id")
    return ids


class PredictionFiles:
    """Collects predictions and writes them: COCO results, panoptic JSON with its PNGs, semantic PNGs.

    Ids of classes are those of the data set that the model was trained on. Images are numbered from 1, or have the
    ids of an image-info JSON, whose file names are the ends of the images' paths.

    Args:
        folder: where the files go.
        metadata: Metadata of the training data.
        image_info: a COCO JSON with `images`; "" numbers them.

    Raises:
        FileNotFoundError, ValueError: see read_image_info.
    """

    def __init__(self, folder: str, metadata: Metadata, image_info: str = ""):
        self.folder = folder
        self.metadata = metadata
        self.ids = read_image_info(image_info) if image_info else None
        self.images: list[dict] = []
        self.instances: list[dict] | None = None
        self.annotations: list[dict] | None = None
        self._names: set[str] = set()

    def image_id(self, path: str) -> int | str:
        """The id of the image at `path`, which is added next.

        Raises:
            ValueError: an image that the image-info JSON does not name, or that has the id of another one.
        """
        if self.ids is None:
            return len(self.images) + 1
        parts = Path(os.path.abspath(path)).parts
        found = [self.ids[parts[k:]] for k in range(len(parts)) if parts[k:] in self.ids]
        if not found:
            raise ValueError(f"{path} is not among the `images` of the --image-info file")
        if others := [image["file_name"] for image in self.images if image["id"] == found[0]]:
            raise ValueError(f"{path} and {others[0]} are the same image of the --image-info file, id {found[0]!r}")
        return found[0]

    def add(self, path: str, stem: str, output: dict, size: tuple[int, int]) -> None:
        """Add the output for the image at `path`, H x W `size`; its PNG is named `stem`, numbered if that is taken."""
        image_id = self.image_id(path)
        stem = unused(stem, self._names)
        self._names.add(stem)
        self.images.append({"id": image_id, "file_name": path, "height": size[0], "width": size[1]})
        if "instances" in output:
            self.instances = self.instances or []
            for result in instances_to_coco_json(output["instances"].to("cpu"), image_id):
                result["category_id"] = self._dataset_id("thing", result["category_id"])
                self.instances.append(result)
        if "panoptic_seg" in output and output["panoptic_seg"][1] is not None:
            ids, segments = output["panoptic_seg"]
            self._png(PANOPTIC, stem, encode_ids(ids.cpu().numpy().astype(np.int64)))
            infos = []
            for segment in segments:
                category = self._dataset_id("thing" if segment["isthing"] else "stuff", segment["category_id"])
                infos.append({"id": segment["id"], "category_id": category})
            self.annotations = self.annotations or []
            self.annotations.append({"image_id": image_id, "file_name": f"{stem}.png", "segments_info": infos})
        elif "sem_seg" in output:
            labels = output["sem_seg"].argmax(dim=0).cpu().numpy()
            labels = labels.astype(np.uint8 if len(output["sem_seg"]) <= 256 else np.uint16)
            self._png(SEMANTIC, stem, cv2.imencode(".png", labels)[1].tobytes())

    def write(self) -> list[str]:
        """Write what was added; returns the paths."""
        written = []
        contents = {IMAGES: {"images": self.images}, INSTANCES: self.instances}
        if self.annotations is not None:
            contents[f"{PANOPTIC}.json"] = {
                "images": self.images, "annotations": self.annotations, "categories": self._categories()
            }  # fmt: skip
        for name, content in contents.items():
            if content is not None:
                written.append(os.path.join(self.folder, name))
                write_json(written[-1], content)
        return written

    def _png(self, kind: str, stem: str, content: bytes) -> None:
        path = Path(self.folder, kind, f"{stem}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda file: file.write(content))

    def _dataset_id(self, kind: str, number: int) -> object:
        ids = self.metadata.get(f"{kind}_dataset_id_to_contiguous_id") or {}
        return next((dataset_id for dataset_id, k in ids.items() if k == number), number)

    def _categories(self) -> list[dict]:
        # Class 0 of the semantic map: all things.
        listed = [("thing", k, name) for k, name in enumerate(self.metadata.get("thing_classes") or [])]
        listed += [("stuff", k, name) for k, name in enumerate(self.metadata.get("stuff_classes") or []) if k > 0]
        return [
            {"id": self._dataset_id(kind, k), "name": name, "isthing": int(kind == "thing")} for kind, k, name in listed
        ]
