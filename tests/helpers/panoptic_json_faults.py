"""Faults of a panoptic JSON, in the form of panoptic_faults."""

import json

from helpers.panoptic_set import HEIGHT, WIDTH


def edit(root, change, name="panoptic.json"):
    data = json.loads((root / name).read_text())
    change(data)
    (root / name).write_text(json.dumps(data))


def segment(data, k=0):
    return data["annotations"][0]["segments_info"][k]


def json_fault(change):
    return lambda root: edit(root, change)


def of_image(**values):
    return json_fault(lambda d: d["images"][0].update(values))


def of_annotation(**values):
    return json_fault(lambda d: d["annotations"][0].update(values))


def of_segment(**values):
    return json_fault(lambda d: segment(d).update(values))


def of_category(**values):
    return json_fault(lambda d: d["categories"][0].update(values))


def content(text):
    return lambda root: (root / "panoptic.json").write_bytes(text)


JSON_FAULTS = {
    "id only in the JSON": (json_fault(lambda d: segment(d).update(id=301)), "segments", 4, "301"),
    "id 0": (json_fault(lambda d: segment(d).update(id=0)), "segment-id", 4, "0"),
    "id of 2^24": (json_fault(lambda d: segment(d).update(id=2**24)), "segment-id", 4, str(2**24)),
    "negative id": (json_fault(lambda d: segment(d).update(id=-3)), "segment-id", 4, "-3"),
    "two segments of one id": (json_fault(lambda d: segment(d, 1).update(id=300)), "duplicate-segment", 4, "300"),
    "area": (json_fault(lambda d: segment(d).update(area=3)), "area", 4, "3"),
    "negative area": (json_fault(lambda d: segment(d).update(area=-3)), "area", 4, "-3"),
    "area that is not a number": (json_fault(lambda d: segment(d).update(area=float("nan"))), "area", 4, "nan"),
    "box": (json_fault(lambda d: segment(d).update(bbox=[0, 0, 58, 15])), "box", 4, "58"),
    "corners as box": (json_fault(lambda d: segment(d, 3).update(bbox=[20, 18, 50, 30])), "box", 4, "30, 12"),
    "unlisted category": (json_fault(lambda d: segment(d).update(category_id=77)), "category-unlisted", 4, "77"),
    "duplicate category": (json_fault(lambda d: d["categories"].append(d["categories"][0])), "duplicate-category", "",
                         "9"),
    "duplicate name": (json_fault(lambda d: d["categories"][0].update(name="dog")), "duplicate-category", "", "dog"),
    "no categories": (json_fault(lambda d: d["categories"].clear()), "value", "", "0"),
    "isthing of another kind": (json_fault(lambda d: d["categories"][0].update(isthing="yes")), "value", "", "yes"),
    "crowd of another kind": (json_fault(lambda d: segment(d).update(iscrowd=2)), "value", 4, "2"),
    "duplicate image": (json_fault(lambda d: d["images"].append(d["images"][0])), "duplicate-image", 4, "4"),
    "two images of one file": (json_fault(lambda d: d["images"][0].update(file_name="002.png")), "duplicate-image", 2,
                               "002.png"),
    "duplicate annotation": (json_fault(lambda d: d["annotations"].append(d["annotations"][0])), "duplicate-annotation",
                           4, "2"),
    "annotation of no image": (json_fault(lambda d: d["annotations"][0].update(image_id=99)),
                               "annotation-without-image", 99, "99"),
    "image without annotation": (json_fault(lambda d: d["annotations"].pop(0)), "image-without-annotation", 4, ""),
    "height of 0": (json_fault(lambda d: d["images"][0].update(height=0)), "value", 4, "0"),
    "segment id as string": (json_fault(lambda d: segment(d).update(id="300")), "string-id", "", "300"),
    "category as string": (json_fault(lambda d: segment(d).update(category_id="30")), "category-unlisted", 4, "30"),
    "image id as string": (json_fault(lambda d: d["annotations"][0].update(image_id="4")), "annotation-without-image",
                           "4", "4"),
    "name that leaves its root": (json_fault(lambda d: d["images"][0].update(file_name="../images/004.png")),
                                  "file-name", 4, "../images"),
    "absolute name": (json_fault(lambda d: d["annotations"][0].update(file_name="/etc/004.png")), "file-name", 4,
                      "/etc"),
    "list for object": (lambda root: (root / "panoptic.json").write_text("[]"), "json", "", "list"),
    "cut JSON": (lambda root: (root / "panoptic.json").write_text('{"images": ['), "json", "", "panoptic.json"),
    "no JSON": (lambda root: (root / "panoptic.json").unlink(), "missing-file", "", ""),
    "JSON that is null": (content(b"null"), "json", "", "panoptic.json"),
    "JSON that is a string": (content(b'"[]"'), "json", "", "panoptic.json"),
    "JSON in UTF-16": (content('{"images": []}'.encode("utf-16")), "json", "", "UTF-8"),
    "JSON of zeros": (content(bytes(5000)), "json", "", "panoptic.json"),
    "JSON nested deeply": (content(b"[" * 100_000 + b"]" * 100_000), "json", "", "deep"),
    "JSON and more": (lambda root: content((root / "panoptic.json").read_bytes() + b"}")(root), "json", "", "Extra"),
    "folder for JSON": (lambda root: ((root / "panoptic.json").unlink(), (root / "panoptic.json").mkdir()), "json", "",
                        "folder"),
    "images by id": (json_fault(lambda d: d.update(images={"4": d["images"][0]})), "value", "", "dict"),
    "annotations of null": (json_fault(lambda d: d.update(annotations=None)), "value", "", "nothing"),
    "only category names": (json_fault(lambda d: d.update(categories=["cat", "dog"])), "value", "", "str"),
    "no image at all": (json_fault(lambda d: (d["images"].clear(), d["annotations"].clear())), "value", "", "empty"),
    "image id of null": (of_image(id=None), "value", None, "None"),
    "image id as list": (of_image(id=[4]), "value", [4], "[4]"),
    "image id as float": (of_image(id=4.0), "value", 4.0, "4.0"),
    "image id as flag": (of_image(id=True), "value", True, "True"),
    "annotation's image id as float": (of_annotation(image_id=4.0), "value", "", "4.0"),
    "annotation's image id as list": (of_annotation(image_id=[4]), "value", "", "[4]"),
    "image id of both types": (json_fault(lambda d: (d["images"].append({**d["images"][0], "id": "4"}))),
                               "duplicate-image", "4", "as a string"),
    "category id of both types": (json_fault(lambda d: d["categories"].append({"id": "9", "name": "x", "isthing": 1})),
                                  "duplicate-category", "", "as a string"),
    "category id as float": (of_category(id=9.0), "value", "", "9.0"),
    "thing and stuff of one id": (of_category(id=30), "duplicate-category", "", "30"),
    "thing and stuff of one name": (of_category(name="sky"), "duplicate-category", "", "sky"),
    "category name of null": (of_category(name=None), "value", "", "None"),
    "isthing of null": (of_category(isthing=None), "value", "", "None"),
    "isthing as string": (of_category(isthing="1"), "value", "", "'1'"),
    "color as word": (of_category(color="red"), "value", "", "red"),
    "color above a byte": (of_category(color=[300, 0, 0]), "value", "", "300"),
    "too many of stuff": (json_fault(lambda d: d["categories"].extend(
        {"id": 100 + k, "name": f"s{k}", "isthing": 0} for k in range(253))), "value", "", "255"),
    "crowd as string": (of_segment(iscrowd="0"), "value", 4, "'0'"),
    "crowd of null": (of_segment(iscrowd=None), "value", 4, "None"),
    "box of NaN": (of_segment(bbox=[float("nan")] * 4), "box", 4, "nan"),
    "box of three": (of_segment(bbox=[1, 2, 3]), "box", 4, "[1, 2, 3]"),
    "box in a list": (of_segment(bbox=[[0, 0, 60, 15]]), "box", 4, "[[0"),
    "box of null": (of_segment(bbox=None), "box", 4, "None"),
    "box of no width": (of_segment(bbox=[0, 0, 0, 15]), "box", 4, "[0, 0, 0, 15]"),
    "area as string": (of_segment(area="900"), "area", 4, "'900'"),
    "area of 0": (of_segment(area=0), "area", 4, "0"),
    "areas 5 times too small": (json_fault(lambda d: [s.update(area=s["area"] // 5) for s in
                                                      d["annotations"][0]["segments_info"]]), "area", 4, "180"),
    "segment id as float": (of_segment(id=300.0), "segment-id", 4, "300.0"),
    "segment id of null": (of_segment(id=None), "segment-id", 4, "None"),
    "segment id as flag": (of_segment(id=True), "segment-id", 4, "True"),
    "segment id as words": (of_segment(id="sky"), "segment-id", 4, "sky"),
    "segment id of 71 bits": (of_segment(id=2**70), "segment-id", 4, str(2**70)),
    "two segments of one id in two types": (json_fault(lambda d: d["annotations"][0]["segments_info"].append(
        {**segment(d), "id": "300"})), "duplicate-segment", 4, "300"),
    "category of null": (of_segment(category_id=None), "category-unlisted", 4, "None"),
    "category as list": (of_segment(category_id=[30]), "category-unlisted", 4, "[30]"),
    "category as float": (of_segment(category_id=30.5), "category-unlisted", 4, "30.5"),
    "category 0 that is not listed": (of_segment(category_id=0), "category-unlisted", 4, "0"),
    "segments by id": (of_annotation(segments_info={"300": {}}), "value", 4, "dict"),
    "segments of null": (of_annotation(segments_info=None), "value", 4, "nothing"),
    "segments of numbers": (of_annotation(segments_info=[300]), "value", 4, "list"),
    "no segments, but a PNG of some": (of_annotation(segments_info=[]), "segments", 4, "300"),
    "height as float": (of_image(height=40.0), "value", 4, "40.0"),
    "height as string": (of_image(height="40"), "value", 4, "'40'"),
    "height as flag": (of_image(height=True), "value", 4, "True"),
    "height of terabytes": (of_image(height=10**12), "size", 4, str(10**12)),
    "width and height swapped": (of_image(width=HEIGHT, height=WIDTH), "size", 4, "40 x 60"),
    "name as number": (of_image(file_name=4), "file-name", 4, "4"),
    "name of null": (of_annotation(file_name=None), "file-name", 4, "None"),
    "name of nothing": (of_image(file_name=""), "file-name", 4, "''"),
    "name with a zero": (of_image(file_name="a\0b.png"), "file-name", 4, "x00"),
    "name of 5,000 letters": (of_image(file_name="a" * 5000), "missing-file", 4, ""),
    "name with back slashes": (of_image(file_name="a\\004.png"), "missing-file", 4, ""),
    "name of another drive": (of_image(file_name="C:\\004.png"), "file-name", 4, "C:"),
    "name that leaves with back slashes": (of_annotation(file_name="..\\panoptic\\004.png"), "file-name", 4, ".."),
    "name that leaves from within": (of_annotation(file_name="a/../../panoptic/004.png"), "file-name", 4, ".."),
    "name of half a character": (of_image(file_name="\ud800.png"), "missing-file", 4, ""),
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
