"""Checks of an image and its panoptic PNG against what the JSON says of them."""

from dataclasses import dataclass

import numpy as np

from crbp_d2.data.images import READABLE, Header, UnreadableImageError, decoding
from crbp_d2.data.panoptic.faults import Fault
from crbp_d2.data.panoptic.reader import area_fault, box_fault, boxes, header_fault, locate
from crbp_d2.data.panoptic.schema import SEGMENT, leaves_root
from crbp_d2.data.values import is_box, is_id, is_length, whole_number

NAMES_OF_MODES = {"L": "grey", "LA": "grey with alpha", "P": "palette", "RGBA": "RGBA", "1": "bilevel"}


@dataclass(frozen=True)
class Pair:
    """What the JSON says of an image and its PNG.

    png: path, "" for an image without annotation.
    segments: those whose ids can be looked for.
    """

    image_id: object
    image: str
    width: int
    height: int
    png: str = ""
    segments: tuple[dict, ...] = ()


def pairs_of(data: dict, panoptic_root: str, image_root: str) -> list[Pair]:
    """What can be checked of a JSON that may have any fault."""
    images = {i["id"]: i for i in data["images"] if is_id(i.get("id")) and _is_usable(i)}
    annotated = [a for a in data["annotations"] if is_id(a.get("image_id")) and _is_name(a.get("file_name"))]
    without = images.keys() - {a["image_id"] for a in annotated}
    pairs = []
    for annotation in annotated:
        image = images.get(annotation["image_id"])
        if image is not None:
            pairs.append(
                Pair(
                    image["id"],
                    f"{image_root}/{image['file_name']}",
                    image["width"],
                    image["height"],
                    f"{panoptic_root}/{annotation['file_name']}",
                    _locatable(annotation.get("segments_info")),
                )
            )
    for image_id in without:
        image = images[image_id]
        pairs.append(Pair(image_id, f"{image_root}/{image['file_name']}", image["width"], image["height"]))
    return pairs


def _is_name(name: object) -> bool:
    return isinstance(name, str) and name != "" and "\0" not in name and not leaves_root(name)


def _is_usable(image: dict) -> bool:
    return _is_name(image.get("file_name")) and is_length(image.get("width")) and is_length(image.get("height"))


def _locatable(segments: object) -> tuple[dict, ...]:
    by_id: dict[int, dict] = {}
    for segment in segments if isinstance(segments, list) else ():
        number = whole_number(segment.get("id")) if isinstance(segment, dict) else None
        if number is not None and 0 < number < 2**24:
            by_id.setdefault(number, segment)
    return tuple({**segment, "id": number} for number, segment in by_id.items())


def check_pair(pair: Pair, image_format: str = "BGR") -> list[Fault]:
    """All faults of an image and its PNG.

    Args:
        image_format: that the model takes; with "L" a grey image is right.
    """
    return [*_check_image(pair, image_format), *(_check_png(pair) if pair.png else ())]


def _check_image(pair: Pair, image_format: str) -> list[Fault]:
    def fault(kind: str, key: str, value: str) -> Fault:
        return Fault(kind, pair.image, pair.image_id, f"images[].{key}", value)

    try:
        with decoding(pair.image) as (image, header):
            if header.shown != (pair.width, pair.height):
                return [_size_fault(header, pair, fault)]
            image.load()
    except FileNotFoundError:
        return [fault("missing-file", "file_name", "is not there")]
    except UnreadableImageError as error:
        return [fault("unreadable", "file_name", str(error))]
    if header.bits > 8 or header.mode not in READABLE:
        return [fault("bits", "file_name", f"{header.bits} bits a channel (mode {header.mode}); 8 are read")]
    if header.mode != ("L" if image_format == "L" else "RGB"):
        mode = NAMES_OF_MODES.get(header.mode, header.mode)
        return [fault("channels", "file_name", f"is {mode}; is converted when it is read")]
    return []


def _size_fault(header: Header, pair: Pair, fault) -> Fault:
    said = f"but the JSON says {pair.width} x {pair.height} (width, height)"
    shown = f"{header.shown[0]} x {header.shown[1]} px"
    if header.size == (pair.width, pair.height):
        return fault("orientation", "width", f"is {shown} by its EXIF orientation {header.orientation}, {said}")
    return fault("size", "width", f"is {shown}, {said}")


def _check_png(pair: Pair) -> list[Fault]:
    def fault(kind: str, key: str, value: str) -> Fault:
        return Fault(kind, pair.png, pair.image_id, key, value)

    name = "annotations[].file_name"
    try:
        with decoding(pair.png) as (image, header):
            if found := header_fault(header, pair.width, pair.height):
                return [fault(found[0], name, found[1])]
            pixels = np.asarray(image.convert("RGB")).astype(np.int32)
    except FileNotFoundError:
        return [fault("missing-file", name, "is not there")]
    except UnreadableImageError as error:
        return [fault("unreadable", name, str(error))]
    faults = []
    if header.mode != "RGB":
        mode = NAMES_OF_MODES.get(header.mode, header.mode)
        faults.append(fault("channels", name, f"is {mode}, not RGB; is read here, but not by all programs"))
    ids = pixels @ np.array([1, 256, 65536], np.int32)
    indices, only_png, only_json = locate(ids, [segment["id"] for segment in pair.segments])
    for where, unknown in (("only in the PNG", only_png), ("only in the JSON", only_json)):
        if len(unknown):
            more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
            faults.append(fault("segments", f"{SEGMENT}.id", f"{where}: {unknown.tolist()[:5]}{more}"))
    return [*faults, *_check_pixels(pair, indices)]


def _check_pixels(pair: Pair, indices: np.ndarray) -> list[Fault]:
    faults = []
    areas = np.bincount(indices.ravel(), minlength=len(pair.segments) + 1)[1:]
    found = boxes(indices, len(pair.segments))
    for segment, area, box in zip(pair.segments, areas.tolist(), found.tolist(), strict=True):
        if area == 0:
            continue
        if segment.get("area", area) != area:
            faults.append(area_fault(pair.png, pair.image_id, segment, area))
        given = segment.get("bbox", box)
        if is_box(given) and max(abs(a - b) for a, b in zip(given, box, strict=True)) >= 1:
            faults.append(box_fault(pair.png, pair.image_id, segment, f"in the PNG {box}"))
    return faults
