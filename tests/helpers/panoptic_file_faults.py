"""Faults of images and PNGs, in the form of panoptic_faults."""

import shutil
from pathlib import Path

import cv2
import numpy as np
from helpers.panoptic_json_faults import edit
from helpers.panoptic_set import HEIGHT, WIDTH, ids_map
from PIL import Image

from crbp_d2.data.panoptic.png import encode_ids

ROTATED = Image.Exif()
ROTATED[274] = 6


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


def flipped_byte(root, kind):
    """Within the packed pixels of a PNG, whose decoder may not mind."""
    path = root / kind / "004.png"
    changed = bytearray(path.read_bytes())
    changed[changed.index(b"IDAT") + 30] ^= 0x10
    path.write_bytes(changed)


def as_jpeg(root, to="RGB", orientation=1, cut=0):
    exif = Image.Exif()
    exif[274] = orientation
    path = root / "images/004.jpg"
    Image.open(root / "images/004.png").convert(to).save(path, exif=exif)
    path.write_bytes(path.read_bytes()[: path.stat().st_size - cut])
    edit(root, lambda d: d["images"][0].update(file_name="004.jpg"))


def in_place_of(root, kind, put):
    path = root / kind / "004.png"
    path.unlink()
    put(path)


def of_mode_16(root):
    """Ids below 2^16 as grey values, as some tools write them."""
    Image.fromarray(ids_map().astype(np.uint16)).save(root / "panoptic/004.png")


def swapped(root):
    one, other = root / "panoptic/004.png", root / "panoptic/002.png"
    one.rename(root / "aside.png")
    other.rename(one)
    (root / "aside.png").rename(other)


def mirrored(root):
    path = root / "panoptic/004.png"
    Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path)


FILE_FAULTS = {
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
    "same name in sub-folders": (in_sub_folders, "same-file-name", 2, "a/000.png"),
    "folder for PNG": (lambda root: in_place_of(root, "panoptic", Path.mkdir), "missing-file", 4, ""),
    "folder for image": (lambda root: in_place_of(root, "images", Path.mkdir), "missing-file", 4, ""),
    "link to nothing": (lambda root: in_place_of(root, "images", lambda p: p.symlink_to("a")), "missing-file", 4, ""),
    "link to itself": (lambda root: in_place_of(root, "images", lambda p: p.symlink_to(p)), "missing-file", 4, ""),
    "image of no bytes": (lambda root: (root / "images/004.png").write_bytes(b""), "unreadable", 4, "004.png"),
    "PNG of no bytes": (lambda root: (root / "panoptic/004.png").write_bytes(b""), "unreadable", 4, "004.png"),
    "garbled image": (lambda root: flipped_byte(root, "images"), "unreadable", 4, "004.png"),
    "garbled PNG": (lambda root: flipped_byte(root, "panoptic"), "unreadable", 4, "004.png"),
    "JPEG without its end": (lambda root: as_jpeg(root, cut=30), "unreadable", 4, "004.jpg"),
    "JPEG of inks": (lambda root: as_jpeg(root, "CMYK"), "channels", 4, "CMYK"),
    "grey JPEG": (lambda root: as_jpeg(root, "L"), "channels", 4, "grey"),
    "JPEG turned by 90": (lambda root: as_jpeg(root, orientation=6), "orientation", 4, "40 x 60"),
    "JPEG turned by 270": (lambda root: as_jpeg(root, orientation=8), "orientation", 4, "40 x 60"),
    "image of grey with alpha": (lambda root: mode(root, "images", "LA"), "channels", 4, "alpha"),
    "image of one bit": (lambda root: mode(root, "images", "1"), "channels", 4, "bilevel"),
    "PNG of grey with alpha": (lambda root: mode(root, "panoptic", "LA"), "png-format", 4, "LA"),
    "PNG of one bit": (lambda root: mode(root, "panoptic", "1"), "png-format", 4, "1"),
    "PNG of grey 16 bits": (of_mode_16, "bits", 4, "16"),
    "PNGs of each other": (swapped, "segments", 4, "only in"),
    "BMP for PNG": (lambda root: Image.open(root / "panoptic/004.png").save(root / "panoptic/004.png", "BMP"),
                    "png-format", 4, "BMP"),
}  # fmt: skip
