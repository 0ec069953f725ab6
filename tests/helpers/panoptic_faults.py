"""Faults to put into a clean panoptic set of two images, each with what the doctor has to say of it."""

import json
import shutil

import cv2
import numpy as np
from helpers.panoptic_set import HEIGHT, WIDTH, ids_map
from PIL import Image

from crbp_d2.data.images import encode_ids

ROTATED = Image.Exif()
ROTATED[274] = 6


def arguments(root):
    return [str(root / "panoptic.json"), str(root / "panoptic"), str(root / "images")]


def flags(root):
    return [
        *("--panoptic-json", str(root / "panoptic.json"), "--panoptic-root", str(root / "panoptic")),
        *("--image-root", str(root / "images"), "--workers", "1"),
    ]


def edit(root, change, name="panoptic.json"):
    data = json.loads((root / name).read_text())
    change(data)
    (root / name).write_text(json.dumps(data))


def segment(data, k=0):
    return data["annotations"][0]["segments_info"][k]


def mode(root, kind, to):
    path = root / kind / "004.png"
    Image.open(path).convert(to).save(path)


def sixteen_bits(root, kind):
    path = str(root / kind / "004.png")
    cv2.imwrite(path, cv2.imread(path).astype(np.uint16) * 257)


def palette(root):
    """The same ids, by a palette."""
    ids = ids_map()
    labels, inverse = np.unique(ids, return_inverse=True)
    image = Image.fromarray(inverse.reshape(ids.shape).astype(np.uint8), "P")
    image.putpalette([int(v) for label in labels for v in (label % 256, label // 256 % 256, label // 65536)])
    image.save(root / "panoptic/004.png")


def cut(root, kind):
    path = root / kind / "004.png"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def smaller(root, kind):
    Image.open(root / kind / "004.png").crop((0, 0, WIDTH - 1, HEIGHT)).save(root / kind / "004.png")


def rotated(root, kind):
    Image.open(root / kind / "004.png").save(root / kind / "004.png", exif=ROTATED)


def other_png(root):
    ids = ids_map()
    ids[:2, :2] = 424242
    (root / "panoptic/004.png").write_bytes(encode_ids(ids))


def in_sub_folders(root):
    for kind in ("images", "panoptic"):
        for folder, old in (("a", "004.png"), ("b", "002.png")):
            (root / kind / folder).mkdir()
            shutil.move(root / kind / old, root / kind / folder / "000.png")
    folders = {4: "a", 2: "b"}

    def rename(data):
        for entry in data["images"]:
            entry["file_name"] = f"{folders[entry['id']]}/000.png"
        for entry in data["annotations"]:
            entry["file_name"] = f"{folders[entry['image_id']]}/000.png"

    edit(root, rename)


def json_fault(change):
    return lambda root: edit(root, change)


FAULTS = {
    "missing PNG": (lambda root: (root / "panoptic/004.png").unlink(), "missing-file", 4, ""),
    "missing image": (lambda root: (root / "images/002.png").unlink(), "missing-file", 2, ""),
    "no folder": (lambda root: (root / "images").rename(root / "moved"), "missing-file", "", "folder"),
    "cut PNG": (lambda root: cut(root, "panoptic"), "unreadable", 4, "004.png"),
    "cut image": (lambda root: cut(root, "images"), "unreadable", 4, "004.png"),
    "text as image": (lambda root: (root / "images/004.png").write_text("hello"), "unreadable", 4, "004.png"),
    "grey PNG": (lambda root: mode(root, "panoptic", "L"), "png-format", 4, "grey"),
    "grey image": (lambda root: mode(root, "images", "L"), "channels", 4, "grey"),
    "RGBA PNG": (lambda root: mode(root, "panoptic", "RGBA"), "channels", 4, "RGBA"),
    "RGBA image": (lambda root: mode(root, "images", "RGBA"), "channels", 4, "RGBA"),
    "palette PNG": (palette, "channels", 4, "palette"),
    "palette image": (lambda root: mode(root, "images", "P"), "channels", 4, "palette"),
    "JPEG for PNG": (lambda root: Image.open(root / "panoptic/004.png").save(root / "panoptic/004.png", "JPEG"),
                     "png-format", 4, "JPEG"),
    "PNG of 16 bits": (lambda root: sixteen_bits(root, "panoptic"), "bits", 4, "16"),
    "image of 16 bits": (lambda root: sixteen_bits(root, "images"), "bits", 4, "16"),
    "small PNG": (lambda root: smaller(root, "panoptic"), "size", 4, "59 x 40"),
    "small image": (lambda root: smaller(root, "images"), "size", 4, "59 x 40"),
    "rotated image": (lambda root: rotated(root, "images"), "orientation", 4, "40 x 60"),
    "rotated PNG": (lambda root: rotated(root, "panoptic"), "orientation", 4, "6"),
    "id only in the PNG": (other_png, "segments", 4, "424242"),
    "id only in the JSON": (json_fault(lambda d: segment(d).update(id=301)), "segments", 4, "301"),
    "id 0": (json_fault(lambda d: segment(d).update(id=0)), "segment-id", 4, "0"),
    "id of 2^24": (json_fault(lambda d: segment(d).update(id=2**24)), "segment-id", 4, str(2**24)),
    "negative id": (json_fault(lambda d: segment(d).update(id=-3)), "segment-id", 4, "-3"),
    "two segments of one id": (json_fault(lambda d: segment(d, 1).update(id=300)), "segment-doubled", 4, "300"),
    "area": (json_fault(lambda d: segment(d).update(area=3)), "area", 4, "3"),
    "negative area": (json_fault(lambda d: segment(d).update(area=-3)), "area", 4, "-3"),
    "area that is not a number": (json_fault(lambda d: segment(d).update(area=float("nan"))), "area", 4, "nan"),
    "box": (json_fault(lambda d: segment(d).update(bbox=[0, 0, 58, 15])), "box", 4, "58"),
    "corners as box": (json_fault(lambda d: segment(d, 3).update(bbox=[20, 18, 50, 30])), "box", 4, "30, 12"),
    "unlisted category": (json_fault(lambda d: segment(d).update(category_id=77)), "category-unlisted", 4, "77"),
    "doubled category": (json_fault(lambda d: d["categories"].append(d["categories"][0])), "category-doubled", "", "9"),
    "doubled name": (json_fault(lambda d: d["categories"][0].update(name="dog")), "category-doubled", "", "dog"),
    "no categories": (json_fault(lambda d: d["categories"].clear()), "value", "", "0"),
    "isthing of another kind": (json_fault(lambda d: d["categories"][0].update(isthing="yes")), "value", "", "yes"),
    "crowd of another kind": (json_fault(lambda d: segment(d).update(iscrowd=2)), "value", 4, "2"),
    "doubled image": (json_fault(lambda d: d["images"].append(d["images"][0])), "image-doubled", 4, "4"),
    "two images of one file": (json_fault(lambda d: d["images"][0].update(file_name="002.png")), "image-doubled", 2,
                               "002.png"),
    "doubled annotation": (json_fault(lambda d: d["annotations"].append(d["annotations"][0])), "annotation-doubled", 4,
                           "2"),
    "annotation of no image": (json_fault(lambda d: d["annotations"][0].update(image_id=99)),
                               "annotation-without-image", 99, "99"),
    "image without annotation": (json_fault(lambda d: d["annotations"].pop(0)), "image-without-annotation", 4, ""),
    "height of 0": (json_fault(lambda d: d["images"][0].update(height=0)), "value", 4, "0"),
    "segment id as string": (json_fault(lambda d: segment(d).update(id="300")), "string-id", "", "300"),
    "category as string": (json_fault(lambda d: segment(d).update(category_id="30")), "category-unlisted", 4, "30"),
    "image id as string": (json_fault(lambda d: d["annotations"][0].update(image_id="4")), "annotation-without-image",
                           "4", "4"),
    "same name in sub-folders": (in_sub_folders, "same-file-name", 2, "a/000.png"),
    "name that leaves its root": (json_fault(lambda d: d["images"][0].update(file_name="../images/004.png")),
                                  "file-name", 4, "../images"),
    "absolute name": (json_fault(lambda d: d["annotations"][0].update(file_name="/etc/004.png")), "file-name", 4,
                      "/etc"),
    "list for object": (lambda root: (root / "panoptic.json").write_text("[]"), "json", "", "list"),
    "cut JSON": (lambda root: (root / "panoptic.json").write_text('{"images": ['), "json", "", "panoptic.json"),
    "no JSON": (lambda root: (root / "panoptic.json").unlink(), "missing-file", "", ""),
}  # fmt: skip
MISSING_KEYS = [
    *((key, lambda d, key=key: d.pop(key)) for key in ("images", "annotations", "categories")),
    *((f"images[].{key}", lambda d, key=key: d["images"][0].pop(key)) 
      for key in ("id", "file_name", "height", "width")),
    *((f"annotations[].{key}", lambda d, key=key: d["annotations"][0].pop(key))
      for key in ("image_id", "file_name", "segments_info")),
    *((f"annotations[].segments_info[].{key}", lambda d, key=key: segment(d).pop(key))
      for key in ("id", "category_id", "iscrowd", "area", "bbox")),
    *((f"categories[].{key}", lambda d, key=key: d["categories"][0].pop(key)) for key in ("id", "name", "isthing")),
]  # fmt: skip
