"""Predictions in the forms that COCO's test servers and programs take."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
from detectron2.data import Metadata
from detectron2.evaluation.coco_evaluation import instances_to_coco_json

from crbp_d2.data.images import read_json
from crbp_d2.data.panoptic.png import encode_ids
from crbp_d2.utils.files import write_text

INSTANCES = "coco_instances_results.json"
PANOPTIC = "panoptic_predictions"
SEMANTIC = "semantic_predictions"
IMAGES = "images.json"


class PredictionFiles:
    """Collects predictions and writes them: COCO results, panoptic JSON with its PNGs, semantic PNGs.

    Ids of classes are those of the data set that the model was trained on. Images are numbered from 1, or have the
    ids of an image-info JSON.

    Args:
        folder: where the files go.
        metadata: of the training data.
        image_info: a COCO JSON whose `images` name the pictures; "" numbers them.

    Raises:
        FileNotFoundError, ValueError: of `image_info`.
    """

    def __init__(self, folder: str, metadata: Metadata, image_info: str = ""):
        self.folder = folder
        self.metadata = metadata
        self.ids: dict[str, object] | None = None
        self.categories: list[dict] = []
        if image_info:
            content = read_json(image_info)
            if not isinstance(content, dict) or not isinstance(content.get("images"), list):
                raise ValueError(f"{image_info} has no list of `images`, as COCO's image_info files do")
            self.ids = {Path(image["file_name"]).name: image["id"] for image in content["images"]}
        self.images: list[dict] = []
        self.instances: list[dict] | None = None
        self.annotations: list[dict] | None = None

    def check(self, path: str) -> None:
        """Raises ValueError for a picture that the image-info JSON does not name."""
        if self.ids is not None and Path(path).name not in self.ids:
            raise ValueError(f"{path} is not among the `images` of the --image-info file")

    def add(self, path: str, stem: str, output: dict, size: tuple[int, int]) -> None:
        """Add the output for the picture at `path`, H x W `size`; its PNG is named `stem`."""
        image_id = self.ids[Path(path).name] if self.ids is not None else len(self.images) + 1
        self.images.append({"id": image_id, "file_name": str(path), "height": size[0], "width": size[1]})
        if "instances" in output:
            self.instances = self.instances or []
            for result in instances_to_coco_json(output["instances"].to("cpu"), image_id):
                result["category_id"] = self._dataset_id("thing", result["category_id"])
                self.instances.append(result)
        if "panoptic_seg" in output and output["panoptic_seg"][1] is not None:
            ids, segments = output["panoptic_seg"]
            self._png(PANOPTIC, stem, encode_ids(ids.cpu().numpy().astype(np.int64)))
            infos = [
                {
                    "id": segment["id"],
                    "category_id": self._dataset_id("thing" if segment["isthing"] else "stuff", segment["category_id"]),
                }
                for segment in segments
            ]
            self.annotations = self.annotations or []
            self.annotations.append({"image_id": image_id, "file_name": f"{stem}.png", "segments_info": infos})
        elif "sem_seg" in output:
            labels = output["sem_seg"].argmax(dim=0).cpu().numpy().astype(np.uint8)
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
                write_text(written[-1], json.dumps(content) + "\n")
        return written

    def _png(self, kind: str, stem: str, content: bytes) -> None:
        path = Path(self.folder, kind, f"{stem}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def _dataset_id(self, kind: str, number: int) -> object:
        ids = self.metadata.get(f"{kind}_dataset_id_to_contiguous_id") or {}
        return next((dataset_id for dataset_id, k in ids.items() if k == number), number)

    def _categories(self) -> list[dict]:
        categories = []
        for kind, isthing in (("thing", 1), ("stuff", 0)):
            for k, name in enumerate(self.metadata.get(f"{kind}_classes") or []):
                if isthing or k > 0:
                    categories.append({"id": self._dataset_id(kind, k), "name": name, "isthing": isthing})
        return categories
