"""Instance sets in COCO's format: each fault is found before a training, and harmless ones change no sample."""

import copy
import json

import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data import transforms as T
from PIL import Image
from pycocotools import mask as coco_mask

from crbp_d2 import add_crbp_config
from crbp_d2.cli.check_dataset import main
from crbp_d2.data import InstanceDatasetMapper, check_instance_dataset, check_instances, register_instances
from crbp_d2.data.instance_schema import complete_instances
from crbp_d2.data.panoptic.faults import DatasetError

HEIGHT, WIDTH = 40, 60
BOXES = ([5, 6, 20, 10], [30, 12, 25, 20], [8, 20, 12, 15])


def drawn(box):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    x, y, width, height = box
    mask[y : y + height, x : x + width] = 1
    return mask


def packed(mask):
    code = coco_mask.encode(np.asfortranarray(mask))
    return {"size": code["size"], "counts": code["counts"].decode()}


def polygon(box):
    x, y, width, height = box
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


@pytest.fixture
def root(tmp_path):
    """Two images with a polygon and run lengths, one with a polygon."""
    masks = (polygon(BOXES[0]), packed(drawn(BOXES[1])), polygon(BOXES[2]))
    data = {"images": [{"id": k, "file_name": f"{k}.png", "height": HEIGHT, "width": WIDTH} for k in (3, 7)],
            "categories": [{"id": 9, "name": "dog"}, {"id": 2, "name": "cat"}],
            "annotations": [{"id": 11 + k, "image_id": (3, 3, 7)[k], "category_id": (9, 2, 9)[k], "iscrowd": 0,
                             "area": int(drawn(BOXES[k]).sum()), "bbox": BOXES[k], "segmentation": masks[k]}
                            for k in range(3)]}  # fmt: skip
    (tmp_path / "images").mkdir()
    for k in (3, 7):
        Image.fromarray(np.full((HEIGHT, WIDTH, 3), 20 * k, np.uint8)).save(tmp_path / f"images/{k}.png")
    (tmp_path / "a.json").write_text(json.dumps(data))
    yield tmp_path
    if "tiny" in DatasetCatalog.list():
        DatasetCatalog.remove("tiny")
        MetadataCatalog.remove("tiny")


def edit(root, change):
    data = json.loads((root / "a.json").read_text())
    change(data)
    (root / "a.json").write_text(json.dumps(data))


def first(**values):
    return lambda d: d["annotations"][0].update(values)


def second(**values):
    return lambda d: d["annotations"][1].update(values)


def each(change):
    return lambda d: [change(a) for a in d["annotations"]]


def mask_of(code, **values):
    return second(segmentation={**code, **values})


def boxes_only(boxes):
    def change(d):
        for annotation, box in zip(d["annotations"], boxes, strict=True):
            annotation.update(segmentation=[], bbox=box, area=box[2] * box[3])

    return change


CODE = packed(drawn(BOXES[1]))
MASK, BOX = "annotations[].segmentation", "annotations[].bbox"
# name -> change, kind, key, part of the value.
HARMFUL = {
    "two points": (first(segmentation=[[26, 31, 50, 31]]), "value", MASK, "[[26"),
    "one ring of two points": (first(segmentation=[*polygon(BOXES[0]), [1, 2, 3, 4]]), "value", MASK, "polygons"),
    "odd coordinates": (first(segmentation=[[1, 2, 3, 4, 5, 6, 7]]), "value", MASK, "[[1"),
    "empty ring": (first(segmentation=[[]]), "value", MASK, "[[]]"),
    "word in a ring": (first(segmentation=[[5, 6, 25, 6, "25", 16]]), "value", MASK, "'25'"),
    "NaN in a ring": (first(segmentation=[[5, 6, 25, 6, float("nan"), 16]]), "value", MASK, "nan"),
    "mask as word": (first(segmentation="none"), "value", MASK, "none"),
    "size exchanged": (mask_of(packed(drawn(BOXES[1]).T)), "size", MASK, "[60, 40]"),
    "sum too small": (mask_of(CODE, counts=[100, 20, 30]), "value", MASK, "sum"),
    "sum of a string": (mask_of(CODE, counts=CODE["counts"][:-1]), "value", MASK, "sum"),
    "string that continues": (mask_of(CODE, counts=CODE["counts"] + "o"), "value", MASK, "sum"),
    "no size": (second(segmentation={"counts": CODE["counts"]}), "value", MASK, "counts"),
    "corners": (each(lambda a: a.update(bbox=[*a["bbox"][:2], a["bbox"][0] + a["bbox"][2],
                                              a["bbox"][1] + a["bbox"][3]])), "value", BOX, "corners"),
    "corners without masks": (boxes_only([[5, 6, 25, 16], [30, 12, 55, 32], [40, 20, 52, 35]]), "value", BOX,
                              "corners"),
    "fractions": (each(lambda a: a.update(bbox=[v / 60 for v in a["bbox"]])), "value", BOX, "mask"),
    "outside": (boxes_only([[70, 6, 9, 9], [3, 3, 9, 9], [9, 9, 3, 3]]), "value", BOX, "outside"),
    "box of three": (first(bbox=[1, 2, 3]), "value", BOX, "[1, 2, 3]"),
    "negative width": (first(bbox=[25, 6, -20, 10]), "value", BOX, "-20"),
    "no box": (lambda d: d["annotations"][0].pop("bbox"), "missing-key", BOX, "annotation 11"),
    "sides exchanged": (lambda d: (d["images"][0].update(width=HEIGHT, height=WIDTH),
                                   d["annotations"][1].update(segmentation=polygon(BOXES[1]))),
                        "size", "images[].width", "exchanged"),
    "no width": (lambda d: d["images"][0].pop("width"), "missing-key", "images[].width", "missing"),
    "id twice": (first(id=12), "duplicate-annotation", "annotations[].id", "12 occurs 2 times"),
    "image twice": (lambda d: d["images"].append(d["images"][0]), "duplicate-image", "images[].id", "3"),
    "category unlisted": (first(category_id=3), "category-unlisted", "annotations[].category_id", "annotation 11: 3"),
    "category twice": (lambda d: d["categories"][0].update(name="cat"), "duplicate-category", "categories[].name",
                       "cat"),
    "empty name": (lambda d: d["categories"][0].update(name=" "), "value", "categories[].name", "' '"),
    "no such image": (first(image_id=4), "annotation-without-image", "annotations[].image_id", "annotation 11"),
    "all crowd": (each(lambda a: a.update(iscrowd=1)), "value", "annotations[].iscrowd", "all 3"),
    "crowd as word": (first(iscrowd="no"), "value", "annotations[].iscrowd", "annotation 11: 'no'"),
    "area as word": (first(area="12"), "value", "annotations[].area", "'12'"),
    "no annotations": (lambda d: d["annotations"].clear(), "value", "annotations", "empty"),
    "panoptic": (first(segments_info=[]), "instances", "annotations[].segments_info", "panoptic"),
}  # fmt: skip
HARMLESS = {
    "no iscrowd": (each(lambda a: a.pop("iscrowd")), "derived-key", "annotations[].iscrowd", "annotation 12"),
    "no area": (each(lambda a: a.pop("area")), "derived-key", "annotations[].area", "missing"),
    "no id": (each(lambda a: a.pop("id")), "derived-key", "annotations[].id", "missing"),
    "id 0": (first(id=0), "derived-key", "annotations[].id", "0"),
    "area of another mask": (second(area=7), "area", "annotations[].area", "500 px"),
    "counts as list": (mask_of(CODE, counts=[1212, *[20, 20] * 24, 20, 208]), None, "", ""),
    "no info": (lambda d: None, None, "", ""),
}


@pytest.mark.parametrize("name", HARMFUL)
def test_harmful_faults_are_named_before_a_training(root, name):
    change, kind, key, value = HARMFUL[name]
    edit(root, change)
    path = str(root / "a.json")
    found = check_instance_dataset(path, str(root / "images"))
    assert any((f.kind, f.key, f.file) == (kind, key, path) and value in f.value for f in found), found
    with pytest.raises(DatasetError) as raised:
        register_instances("tiny", path, str(root / "images"))
        check_instances(get_cfg(), "tiny")
    assert path in str(raised.value) and "\n" not in str(raised.value)


def samples():
    mapper = InstanceDatasetMapper(is_train=True, augmentations=[], image_format="BGR", use_instance_mask=True,
                                   instance_mask_format="bitmask")  # fmt: skip
    return [mapper(record) for record in DatasetCatalog.get("tiny")]


@pytest.mark.parametrize("name", HARMLESS)
def test_harmless_faults_change_no_sample(root, name):
    change, kind, key, value = HARMLESS[name]
    edit(root, change)
    found = check_instance_dataset(str(root / "a.json"), str(root / "images"))
    assert all(f.harmless for f in found)
    assert any((f.kind, f.key) == (kind, key) and value in f.value for f in found) if kind else not found
    register_instances("tiny", str(root / "a.json"), str(root / "images"))
    one, other = (sample["instances"] for sample in samples())
    assert one.gt_classes.tolist() == [1, 0] and other.gt_classes.tolist() == [1]
    for mask, box in zip([*one.gt_masks.tensor, *other.gt_masks.tensor], BOXES, strict=True):
        assert np.array_equal(mask.numpy(), drawn(box))


def test_derived_keys_are_those_of_the_masks(root):
    truth = json.loads((root / "a.json").read_text())
    data = copy.deepcopy(truth)
    for annotation in data["annotations"]:
        del annotation["area"], annotation["iscrowd"], annotation["id"]
    complete_instances(data)
    for k, (annotation, expected) in enumerate(zip(data["annotations"], truth["annotations"], strict=True), start=1):
        assert annotation == {**expected, "id": k}
    json.dumps(data, allow_nan=False)


def test_boxes_without_masks_need_a_model_without_masks(root):
    edit(root, lambda d: d["annotations"][1].pop("segmentation"))
    register_instances("tiny", str(root / "a.json"), str(root / "images"))
    cfg = get_cfg()
    cfg.MODEL.MASK_ON = True
    with pytest.raises(DatasetError, match="annotation 12: .*MODEL.MASK_ON"):
        check_instances(cfg, "tiny")
    cfg.MODEL.MASK_ON = False
    check_instances(cfg, "tiny")


def test_images_are_looked_for_before_a_training(root):
    register_instances("tiny", str(root / "a.json"), str(root / "images"))
    check_instances(get_cfg(), "tiny")
    # All objects fit into the exchanged sides.
    edit(root, lambda d: (d["images"][1].update(width=HEIGHT, height=WIDTH), d["annotations"].reverse()))
    with pytest.raises(DatasetError, match=r"\(image 7\): .*7\.png is 60 x 40 px"):
        check_instances(get_cfg(), "tiny")
    (root / "images/7.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"\(image 7\): .*'7\.png'"):
        check_instances(get_cfg(), "tiny")


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("damage", ["truncated", "another size", "gone"])
def test_unreadable_images_are_named(root, train, damage):
    register_instances("tiny", str(root / "a.json"), str(root / "images"))
    record = DatasetCatalog.get("tiny")[0]
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8))
    path = root / "images/3.png"
    (image.crop((0, 0, 9, 9)) if damage == "another size" else image).save(path, "JPEG")
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-200])
    elif damage == "gone":
        path.unlink()
    mapper = InstanceDatasetMapper(is_train=train, augmentations=[], image_format="BGR")
    with pytest.raises((ValueError, FileNotFoundError), match=r"3\.png") as raised:
        mapper(record)
    assert "\n" not in str(raised.value)


def test_labels_of_semantic_maps_are_checked(root):
    Image.fromarray(np.full((HEIGHT, WIDTH), 5, np.uint8)).save(root / "map.png")
    record = {"file_name": str(root / "images/3.png"), "height": HEIGHT, "width": WIDTH, "image_id": 3}
    record["sem_seg_file_name"] = str(root / "map.png")
    for classes, ignored in ((6, 255), (3, 5)):
        mapper = InstanceDatasetMapper(is_train=True, augmentations=[], image_format="BGR", semantic_classes=classes,
                                       ignore_label=ignored)  # fmt: skip
        assert (mapper(record)["sem_seg"] == 5).all()
    mapper.ignore_label = 255
    with pytest.raises(ValueError, match=r"map\.png .*label 5.* 0 to 2"):
        mapper(record)


def test_crops_without_objects(root):
    edit(root, lambda d: d["annotations"].pop())
    register_instances("tiny", str(root / "a.json"), str(root / "images"))
    cfg = get_cfg()
    add_crbp_config(cfg)
    cfg.INPUT.CROP.ENABLED, cfg.MODEL.MASK_ON = True, True
    mapper = InstanceDatasetMapper(cfg, is_train=True)
    for x, counts in ((44, [0, 0]), (16, [1, 0])):
        mapper.augmentations = T.AugmentationList([T.CropTransform(x, 0, 12, 12)])
        found = [mapper(record)["instances"] for record in DatasetCatalog.get("tiny")]
        assert [len(instances) for instances in found] == counts
        assert all(instances.has("gt_masks") for instances in found)
    # The rest of the first object, whose box is that of its pixels.
    assert found[0].gt_boxes.tensor.tolist() == [[0, 6, 9, 12]]
    assert np.array_equal(found[0].gt_masks.tensor[0].numpy(), drawn(BOXES[0])[:12, 16:28])


def test_registering_again_takes_the_corrected_classes(root):
    register_instances("tiny", str(root / "a.json"), str(root / "images"))
    assert MetadataCatalog.get("tiny").thing_classes == ["cat", "dog"]
    edit(root, lambda d: d["categories"][1].update(name="horse"))
    register_instances("tiny", str(root / "a.json"), str(root / "images"))
    assert MetadataCatalog.get("tiny").thing_classes == ["horse", "dog"]
    with pytest.raises(ValueError, match="'tiny' is taken"):
        register_instances("tiny", str(root / "a.json"), str(root))
    with pytest.raises(ValueError, match=r"'\.\./up'"):
        register_instances("../up", str(root / "a.json"), str(root / "images"))


def test_the_program_checks_instances_by_themselves(root, capsys):
    flags = ["--instances-json", str(root / "a.json"), "--image-root", str(root / "images"), "--workers", "1"]
    assert main(flags) == 0 and capsys.readouterr().out == ""
    (root / "images/7.png").write_bytes(b"no image")
    edit(root, first(bbox=[1, 2, 3]))
    assert main(flags) == 1
    shown = capsys.readouterr().out
    assert "7.png" in shown and "annotation 11: [1, 2, 3]" in shown
    assert main([*flags, "--ignore", "value", "unreadable"]) == 0
    with pytest.raises(SystemExit) as stopped:
        main([*flags, "--fix", str(root / "out")])
    assert stopped.value.code == 2
