"""Repaired copies: what can be derived is fixed, all else is left and listed."""

import contextlib

import pytest
from detectron2.data import DatasetCatalog
from helpers.panoptic_faults import FAULTS, arguments, flags
from helpers.panoptic_json_faults import edit, segment
from helpers.panoptic_set import register, write_set

from crbp_d2.cli.check_dataset import main
from crbp_d2.data import PanopticDatasetMapper, check_panoptic_dataset
from crbp_d2.doctor.repair import repair_panoptic_dataset
from crbp_d2.doctor.report import PanopticFiles


def mapped(record):
    return PanopticDatasetMapper(is_train=True, augmentations=[], image_format="L")(record)


def assert_equal_samples(sample, truth):
    assert (sample["sem_seg"] == truth["sem_seg"]).all()
    for key in ("gt_classes", "gt_boxes", "gt_masks"):
        one, other = (s["instances"].get(key) for s in (sample, truth))
        assert (getattr(one, "tensor", one) == getattr(other, "tensor", other)).all()


REPAIRED = ("area", "box", "corners as box", "negative area", "duplicate category", "duplicate image",
            "duplicate annotation", "annotation of no image", "image without annotation", "segment id as string",
            "category as string", "image id as string", "palette PNG", "RGBA PNG", "id only in the JSON",
            "rotated PNG", "two segments of one id", "image id as float", "annotation's image id as float",
            "category id as float", "segment id as float", "isthing as string", "crowd as string", "color as word",
            "box of NaN", "box of null", "areas 5 times too small", "height as string", "height of terabytes",
            "width and height swapped", "palette image", "RGBA image", "grey image", "image of one bit", "BMP for PNG",
            "two segments of one id in two types")  # fmt: skip


@pytest.mark.parametrize("name", REPAIRED)
def test_what_can_be_repaired_is(root, tmp_path_factory, capsys, name):
    if name == "two segments of one id":
        edit(root, lambda d: d["annotations"][0]["segments_info"].append(segment(d)))
    elif name == "id only in the JSON":
        edit(root, lambda d: d["annotations"][0]["segments_info"].append({**segment(d), "id": 5}))
    else:
        FAULTS[name][0](root)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    out = tmp_path_factory.mktemp("fix") / "out"
    assert main([*flags(root), "--fix", str(out)]) == 1
    assert str(out) in capsys.readouterr().out
    assert check_panoptic_dataset(*arguments(out)) == []
    assert before == {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    register(out)
    samples = {record["image_id"]: mapped(record) for record in DatasetCatalog.get("tiny")}
    clean = tmp_path_factory.mktemp("clean")
    write_set(clean)
    register(clean, "tiny_clean")
    for record in DatasetCatalog.get("tiny_clean"):
        if record["image_id"] in samples or "annotation" not in name:
            assert_equal_samples(samples[record["image_id"]], mapped(record))


@pytest.mark.parametrize("name", FAULTS)
def test_a_repair_leaves_what_it_cannot_repair_and_says_so(root, tmp_path_factory, capsys, name):
    FAULTS[name][0](root)
    out = tmp_path_factory.mktemp("fix") / "out"
    assert main([*flags(root), "--fix", str(out)]) == 1
    said = capsys.readouterr().out
    if (out / "panoptic.json").exists():
        left = check_panoptic_dataset(*arguments(out))
        assert all(fault.kind in said.split("could not be repaired")[-1] for fault in left)
    else:
        assert "cannot be repaired" in said


def test_a_repair_overwrites_nothing_and_writes_nowhere_else(root, tmp_path_factory):
    files = PanopticFiles(*arguments(root))
    with pytest.raises(FileExistsError):
        repair_panoptic_dataset(files, str(root))
    outside = tmp_path_factory.mktemp("outside")
    edit(root, lambda d: d["images"][0].update(file_name=str(outside / "x.png")))
    edit(root, lambda d: d["annotations"][0].update(file_name="../x.png"))
    with contextlib.suppress(ValueError):
        repair_panoptic_dataset(files, str(outside / "out"))
    assert [path.name for path in outside.iterdir()] == ["out"]
