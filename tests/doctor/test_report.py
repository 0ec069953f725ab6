"""Each kind of fault, put into a clean set of two images: the doctor finds it, and names file, image and value."""

import shutil
from pathlib import Path

import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog
from helpers.panoptic_faults import FAULTS, arguments, flags
from helpers.panoptic_file_faults import mirrored
from helpers.panoptic_json_faults import MISSING_KEYS, edit
from helpers.panoptic_set import register

from crbp_d2 import add_crbp_config
from crbp_d2.cli.check_dataset import main
from crbp_d2.data import PanopticDatasetMapper, check_panoptic_dataset, write_instances_json
from crbp_d2.data.panoptic.faults import MOST_ROWS
from crbp_d2.doctor.report import PanopticFiles, check_panoptic_datasets

SAMPLE = Path(__file__).resolve().parents[4] / "shared/coco_sample/coco"


def test_a_clean_set_has_no_faults_and_gives_no_word(root, capsys):
    assert check_panoptic_dataset(*arguments(root)) == []
    assert check_panoptic_dataset(*arguments(root), workers=2) == []
    assert main(flags(root)) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the two real COCO images are absent")
def test_real_coco_images_are_clean():
    files = SAMPLE / "annotations/panoptic_val2017.json", SAMPLE / "panoptic_val2017", SAMPLE / "val2017"
    instances = str(SAMPLE / "annotations/instances_val2017.json")
    assert check_panoptic_dataset(*map(str, files), instances_json=instances) == []


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_found(root, capsys, name):
    corrupt, kind, image, value = FAULTS[name]
    corrupt(root)
    faults = check_panoptic_dataset(*arguments(root))
    found = [f for f in faults if f.kind == kind]
    assert found, faults
    assert any(f.image == image and value in f.value and str(root) in f.file for f in found), found
    assert main(flags(root)) == 1
    assert kind in capsys.readouterr().out


@pytest.mark.parametrize("key,remove", MISSING_KEYS, ids=[key for key, _ in MISSING_KEYS])
def test_each_missing_key_is_found(root, key, remove):
    edit(root, remove)
    faults = check_panoptic_dataset(*arguments(root))
    assert any(f.key == key and "is missing" in f.value for f in faults), faults


@pytest.mark.parametrize("name", FAULTS)
def test_nothing_harmful_trains_in_silence(root, name):
    """Either there is an error that names a file, or what is loaded is what the clean set gives."""
    register(root)
    clean = {record["image_id"]: record for record in DatasetCatalog.get("tiny")}
    mapper = PanopticDatasetMapper(is_train=True, augmentations=[], image_format="RGB")
    expected = {image_id: mapper(record) for image_id, record in clean.items()}
    FAULTS[name][0](root)
    harmful = any(not fault.harmless for fault in check_panoptic_dataset(*arguments(root)))
    try:
        register(root, name="tiny2")
        loaded = [mapper(record) for record in DatasetCatalog.get("tiny2")]
    except (ValueError, FileNotFoundError) as error:
        assert harmful and "\n" not in str(error) and str(root) in str(error)
    else:
        assert not harmful
        for sample in loaded:
            truth = expected[sample["image_id"]]
            assert (sample["sem_seg"] == truth["sem_seg"]).all()
            assert (sample["instances"].gt_masks.tensor == truth["instances"].gt_masks.tensor).all()


def mapped(record):
    return PanopticDatasetMapper(is_train=True, augmentations=[], image_format="L")(record)


def test_a_mirrored_png_is_logged_on_reading(root, monkeypatch):
    """Either the PNG or the boxes may be right."""
    told = []
    monkeypatch.setattr("crbp_d2.data.panoptic.reader.log_first_n", lambda level, text, **kwargs: told.append(text))
    register(root)
    records = DatasetCatalog.get("tiny")
    mapped(records[0])
    assert not told
    mirrored(root)
    assert any(fault.kind == "box" and fault.image == 4 for fault in check_panoptic_dataset(*arguments(root)))
    mapped(records[0])
    (text,) = told
    assert "004.png" in text and "bbox" in text


def test_a_detection_json_is_known_on_either_side(root):
    register(root)
    write_instances_json("tiny", str(root / "instances.json"))
    assert check_panoptic_dataset(*arguments(root), instances_json=str(root / "instances.json")) == []
    swapped = check_panoptic_dataset(
        str(root / "instances.json"), *arguments(root)[1:], instances_json=str(root / "panoptic.json")
    )  # fmt: skip
    assert [f.kind for f in swapped] == ["detection-json", "instances"]


@pytest.mark.parametrize("change,key,value", [
    (lambda d: d["annotations"][0].update(area=5), "annotations[].area", "5"),
    (lambda d: d["annotations"][0].update(bbox=[0, 0, 9, 9]), "annotations[].bbox", "9"),
    (lambda d: d["annotations"][0].update(id=0), "annotations[].id", "0"),
    (lambda d: d["annotations"].append(d["annotations"][0]), "annotations[].id", "1"),
    (lambda d: d["annotations"][0].update(category_id=3), "annotations[].category_id", "3"),
    (lambda d: d["annotations"][0].update(image_id=3), "annotations[].image_id", "image"),
    (lambda d: d["annotations"][0].pop("iscrowd"), "annotations[].iscrowd", "missing"),
    (lambda d: d["annotations"][0].pop("segmentation"), "annotations[].segmentation", "missing"),
    (lambda d: d["annotations"][0].update(segmentation=[[1, 2, 3]]), "annotations[].segmentation", ""),
    (lambda d: d["annotations"][0]["segmentation"].update(size=[60, 40]), "annotations[].segmentation", "[60, 40]"),
    (lambda d: d["categories"].pop(), "categories[].id", "12"),
    (lambda d: d["images"].pop(), "images[].id", "panoptic"),
    (lambda d: d["images"][0].update(width=7), "images[].width", "7"),
])  # fmt: skip
def test_faults_of_the_instances_are_found(root, change, key, value):
    register(root)
    write_instances_json("tiny", str(root / "instances.json"))
    edit(root, change, "instances.json")
    faults = check_panoptic_dataset(*arguments(root), instances_json=str(root / "instances.json"))
    assert any(f.key == key and value in f.value for f in faults), faults


@pytest.mark.parametrize("change", [
    lambda d: d["categories"].reverse(),
    lambda d: d["categories"][0].update(name="dog") or d["categories"][2].update(name="cat"),
    lambda d: d["categories"].append({"id": 40, "name": "hill", "isthing": 0}),
])  # fmt: skip
def test_tables_that_differ_between_sets_are_found(root, tmp_path_factory, capsys, change):
    other = tmp_path_factory.mktemp("other")
    shutil.copytree(root, other, dirs_exist_ok=True)
    sets = [PanopticFiles(*arguments(folder)) for folder in (root, other)]
    assert check_panoptic_datasets(sets) == []
    edit(other, change)
    (fault,) = check_panoptic_datasets(sets)
    assert fault.kind == "category-tables" and fault.file == sets[1].panoptic_json
    assert main([*flags(root), *flags(other)]) == 1
    assert "category-tables" in capsys.readouterr().out


def test_class_counts_are_compared_with_a_config(root, tmp_path, capsys):
    cfg = get_cfg()
    add_crbp_config(cfg)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 2, 3
    assert check_panoptic_dataset(*arguments(root), cfg=cfg) == []
    path = tmp_path / "my.yaml"
    path.write_text("MODEL: {ROI_HEADS: {NUM_CLASSES: 7}, SEM_SEG_HEAD: {NUM_CLASSES: 3}}")
    assert main([*flags(root), "--config-file", str(path)]) == 1
    out = capsys.readouterr().out
    assert "MODEL.ROI_HEADS.NUM_CLASSES" in out and "is 7" in out and "SEM_SEG_HEAD" not in out
    with pytest.raises(SystemExit) as stopped:
        main([*flags(root), "--config-file", str(tmp_path / "no.yaml")])
    assert stopped.value.code == 2 and "no.yaml" in capsys.readouterr().err


def test_many_faults_of_a_kind_are_counted(root):
    edit(root, lambda d: d["annotations"].extend({**d["annotations"][0], "image_id": 100 + k} for k in range(50)))
    faults = [f for f in check_panoptic_dataset(*arguments(root)) if f.kind == "annotation-without-image"]
    assert len(faults) == MOST_ROWS + 1 and "30 more" in faults[-1].value


def test_options_that_do_not_go_together(root, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*flags(root), *flags(root), "--panoptic-json", str(root / "panoptic.json")])
    assert stopped.value.code == 2 and "--panoptic-root" in capsys.readouterr().err
