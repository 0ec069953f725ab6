"""Checks of images and panoptic PNGs against their JSON."""

import os
from dataclasses import dataclass, replace

import numpy as np

from crbp_d2.data.images import ImageError, UnreadableImageError, decoding, header_fault
from crbp_d2.data.panoptic.faults import Faults
from crbp_d2.data.panoptic.png import MOST_SEGMENTS, NAMES_OF_MODES, boxes, read_ids
from crbp_d2.data.panoptic.reader import area_fault, box_fault, find_segments
from crbp_d2.data.schema import is_box, is_id, is_inside, is_length, is_table, whole_number


@dataclass(frozen=True)
class Pair:
    """An image and its PNG, as described by the JSON.

    png: str, path; "" for an image without annotation.
    segments: those with a valid id.
    """

    image_id: object
    image: str
    width: int
    height: int
    png: str = ""
    segments: tuple[dict, ...] = ()


def pairs_of(data: dict, panoptic_root: str, image_root: str) -> list[Pair]:
    """The pairs of a JSON that can be checked, whatever its faults."""
    images = {pair.image_id: pair for pair in images_of(data, image_root)}
    pairs = []
    for annotation in data["annotations"]:
        name, image_id = annotation.get("file_name"), annotation.get("image_id")
        if is_id(image_id) and is_inside(name) and image_id in images:
            segments = _locatable(annotation.get("segments_info"))
            pairs.append(replace(images[image_id], png=f"{panoptic_root}/{name}", segments=segments))
    annotated = {pair.image_id for pair in pairs}
    return [*pairs, *(pair for image_id, pair in images.items() if image_id not in annotated)]


def images_of(data: dict, image_root: str, relative: bool = True) -> list[Pair]:
    """The images of a JSON that can be checked, whatever its faults."""
    pairs = []
    for image in data["images"]:
        name, sides = image.get("file_name"), (image.get("width"), image.get("height"))
        valid = is_inside(name) if relative else isinstance(name, str) and name != "" and "\0" not in name
        if is_id(image.get("id")) and valid and all(map(is_length, sides)):
            pairs.append(Pair(image["id"], os.path.join(image_root, name), *sides))
    return list({pair.image_id: pair for pair in pairs}.values())


def _locatable(segments: object) -> tuple[dict, ...]:
    by_id: dict[int, dict] = {}
    for segment in segments if is_table(segments) else ():
        number = whole_number(segment.get("id"))
        if number is not None and 0 < number < MOST_SEGMENTS:
            by_id.setdefault(number, segment)
    return tuple({**segment, "id": number} for number, segment in by_id.items())


def check_pair(pair: Pair, image_format: str = "BGR") -> Faults:
    """All faults of an image and its PNG.

    Args:
        image_format: str, the model's input format; grey images are right for "L".
    """
    faults = Faults(pair.image)
    _check_image(pair, image_format, faults)
    if pair.png:
        of_png = Faults(pair.png)
        ids = read_ids(pair.png, pair.width, pair.height, of_png, pair.image_id)
        if ids is not None:
            _check_pixels(pair, find_segments(ids, list(pair.segments), of_png, pair.image_id), of_png)
        faults.extend(of_png)
    return faults


def _check_image(pair: Pair, image_format: str, faults: Faults) -> None:
    def add(kind: str, key: str, value: str) -> None:
        faults.add(kind, f"images[].{key}", value, pair.image_id)

    try:
        with decoding(pair.image) as (image, header):
            if fault := header_fault(header, pair.width, pair.height, "the JSON"):
                add(fault[0], "file_name" if fault[0] == "bits" else "width", fault[1])
                return
            image.load()
    except FileNotFoundError:
        add("missing-file", "file_name", "does not exist")
    except (UnreadableImageError, ImageError) as error:
        add("unreadable", "file_name", str(error))
    else:
        if header.mode != ("L" if image_format == "L" else "RGB"):
            add("channels", "file_name", f"is {NAMES_OF_MODES.get(header.mode, header.mode)}; is converted on reading")


def _check_pixels(pair: Pair, indices: np.ndarray, faults: Faults) -> None:
    areas = np.bincount(indices.ravel(), minlength=len(pair.segments) + 1)[1:]
    found = boxes(indices, len(pair.segments))
    for segment, area, box in zip(pair.segments, areas.tolist(), found.tolist(), strict=True):
        if area == 0:
            continue
        if segment.get("area", area) != area:
            faults.extend([area_fault(pair.png, pair.image_id, segment, area)])
        given = segment.get("bbox", box)
        if is_box(given) and max(abs(a - b) for a, b in zip(given, box, strict=True)) >= 1:
            faults.extend([box_fault(pair.png, pair.image_id, segment, f"in the PNG {box}")])
