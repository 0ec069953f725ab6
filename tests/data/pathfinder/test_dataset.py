"""Pathfinder data sets by name: registration, first use, streams; and the mapper."""

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data import transforms as T
from PIL import Image

import crbp_d2.data.pathfinder.dataset as pathfinder
from crbp_d2 import add_crbp_config, register_pathfinder
from crbp_d2.data import PathfinderDatasetMapper, check_dataset_available, generate_pathfinder, register_builtin
from crbp_d2.data.pathfinder.files import Split, write_split
from crbp_d2.data.pathfinder.mapper import load_stimulus
from crbp_d2.data.pathfinder.spec import SPECS, PathfinderSpec

TINY = PathfinderSpec(3, window=32, image_size=32, dash_length=2, dash_thickness=1, margin=1, seed_distance=6,
                      border=1, distractor_dashes=1, dot_radius=2)  # fmt: skip


@pytest.fixture(autouse=True)
def names_are_freed():
    yield
    for name in [n for n in DatasetCatalog.list() if n.startswith("pathfinder_tiny")]:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_presets_look_for_their_files_when_used(tmp_path, monkeypatch):
    register_builtin()
    for name in SPECS:
        assert {f"pathfinder_{name}_{split}" for split in ("train", "val", "stream")} <= set(DatasetCatalog.list())
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    folder = tmp_path / "pathfinder/PF14/val"
    for refused in (check_dataset_available, DatasetCatalog.get):
        with pytest.raises(FileNotFoundError) as missing:
            refused("pathfinder_PF14_val")
        message = str(missing.value)
        assert str(folder) in message and "\n" not in message
        assert "tools/generate_pathfinder.py --spec PF14" in message and "pathfinder_PF14_stream" in message
    check_dataset_available("pathfinder_PF14_stream")
    check_dataset_available("pathfinder_PF6s_val")
    # Whatever count and seed the tool was given.
    write_split(folder, Split(SPECS["PF14"], (9, 2), 2))
    records = DatasetCatalog.get("pathfinder_PF14_val")
    assert [(r["image_id"], r["height"], r["width"]) for r in records] == [(0, 150, 150), (1, 150, 150)]
    image = PathfinderDatasetMapper()(records[1])["image"]
    assert np.array_equal(image[0], generate_pathfinder("PF14", 2, seed=(9, 2))[0][1])


def test_small_sets_are_drawn_on_first_use_and_once(tmp_path, monkeypatch):
    register_pathfinder(TINY, "tiny", root=str(tmp_path), num_train=5, num_val=3, seed=4)
    assert not list(tmp_path.iterdir())
    train, val = (DatasetCatalog.get(f"pathfinder_tiny_{split}") for split in ("train", "val"))
    assert (len(train), len(val)) == (5, 3)
    monkeypatch.setattr(pathfinder, "write_split", lambda *args, **kwargs: pytest.fail("drawn twice"))
    assert DatasetCatalog.get("pathfinder_tiny_train") == train

    mapper = PathfinderDatasetMapper()
    stream = DatasetCatalog.get("pathfinder_tiny_stream")
    drawn = [mapper(record) for record in (*train, *val, *(stream[k] for k in range(8)))]
    assert len({sample["image"].numpy().tobytes() for sample in drawn}) == 16  # no two splits share a stimulus
    images, masks = generate_pathfinder(TINY, 5, seed=(4, 1))
    for k, sample in enumerate(drawn[:5]):
        assert sample["image"].shape == (1, 32, 32) and sample["image"].dtype == torch.uint8
        assert sample["sem_seg"].shape == (32, 32) and sample["sem_seg"].dtype == torch.int64
        assert np.array_equal(sample["image"][0], images[k]) and np.array_equal(sample["sem_seg"], masks[k])
    assert "stimulus" not in drawn[-1]
    again = mapper(DatasetCatalog.get("pathfinder_tiny_stream")[7])
    assert torch.equal(again["image"], drawn[-1]["image"])


def test_registering_twice(tmp_path):
    arguments = {"root": str(tmp_path), "num_train": 5, "num_val": 3}
    register_pathfinder(TINY, "tiny", **arguments)
    register_pathfinder(TINY, "tiny", **arguments)
    with pytest.raises(ValueError, match="tiny_train' is taken.*count=5"):
        register_pathfinder(TINY, "tiny", **{**arguments, "num_train": 6})
    with pytest.raises(ValueError, match="needs a name"):
        register_pathfinder(TINY)
    with pytest.raises(ValueError, match="unknown Pathfinder spec 'PF15'"):
        register_pathfinder("PF15")
    with pytest.raises(ValueError, match="counts must be at least 1.*num_val=0"):
        register_pathfinder(TINY, "tiny2", num_val=0)


def test_other_stimuli_are_named_and_a_missing_archive_drawn(tmp_path):
    register_pathfinder(TINY, "tiny", root=str(tmp_path), num_train=2, num_val=2)
    other = PathfinderSpec(**{**TINY.__dict__, "dashes": 2})
    write_split(tmp_path / "tiny/train", Split(other, (0, 1), 2))
    with pytest.raises(ValueError, match="tiny/train .*dashes 2 there, 3"):
        DatasetCatalog.get("pathfinder_tiny_train")
    DatasetCatalog.get("pathfinder_tiny_val")
    archive = tmp_path / "tiny/val/00000.zip"
    content = archive.read_bytes()
    archive.unlink()
    DatasetCatalog.get("pathfinder_tiny_val")
    assert archive.read_bytes() == content
    archive.unlink()
    register_pathfinder(TINY, "tiny_kept", root=str(tmp_path), on_first_use=False)
    (tmp_path / "tiny").rename(tmp_path / "tiny_kept")
    with pytest.raises(ValueError, match="tiny_kept/val is not complete"):
        DatasetCatalog.get("pathfinder_tiny_kept_val")


def mapper_of(flip, is_train=True):
    cfg = get_cfg()
    add_crbp_config(cfg)
    cfg.INPUT.RANDOM_FLIP = flip
    return PathfinderDatasetMapper(cfg, is_train=is_train)


@pytest.mark.parametrize("flip,expected", [("none", 1), ("horizontal", 2), ("vertical", 2), ("both", 4)])
def test_flips_move_image_and_target_together(tmp_path, flip, expected):
    register_pathfinder(TINY, "tiny", root=str(tmp_path))
    record = DatasetCatalog.get("pathfinder_tiny_stream")[0]
    (image,), (mask,) = generate_pathfinder(TINY, 1, seed=(0, 3))
    variants = {(image[::v, ::h].tobytes(), mask[::v, ::h].tobytes()) for v in (1, -1) for h in (1, -1)}
    assert len(variants) == 4
    mapper, seen = mapper_of(flip), set()
    for _ in range(60):
        sample = mapper(record)
        seen.add((sample["image"][0].numpy().tobytes(), sample["sem_seg"].numpy().astype(np.uint8).tobytes()))
    assert len(seen) == expected and seen <= variants
    in_evaluation = mapper_of(flip, is_train=False)(record)
    assert np.array_equal(in_evaluation["image"][0], image) and np.array_equal(in_evaluation["sem_seg"], mask)
    with pytest.raises(ValueError, match="INPUT.RANDOM_FLIP is 'diagonal'"):
        mapper_of("diagonal")


def test_images_of_your_own_and_what_does_not_fit(tmp_path):
    def written(name, content):
        cv2.imwrite(str(tmp_path / name), content)
        return str(tmp_path / name)

    image, target = np.full((20, 30), 7, np.uint8), np.zeros((20, 30), np.uint8)
    target[3:6] = 1
    record = {"file_name": written("a.png", image), "sem_seg_file_name": written("t.png", target)}
    record |= {"height": 20, "width": 30, "image_id": 0}
    mapper = PathfinderDatasetMapper(augmentations=[T.RandomFlip(prob=1.0)])
    assert torch.equal(mapper(record)["sem_seg"].sum(dim=1), torch.tensor(target.sum(axis=1)).long())

    def refused(message, **changes):
        with pytest.raises(ValueError, match=message):
            mapper({**record, **changes})

    refused("b.png has 3 channels", file_name=written("b.png", np.zeros((20, 30, 3), np.uint8)))
    refused("a.png is 30 x 20 px, .* 31 x 20", width=31)
    refused("u.png is 30 x 21 px, .* 30 x 20", sem_seg_file_name=written("u.png", np.zeros((21, 30), np.uint8)))
    refused("v.png has the label 2", sem_seg_file_name=written("v.png", target * 2))
    refused("w.png has 16 bits", file_name=written("w.png", image.astype(np.uint16) * 257))
    refused("x.png has 16 bits", sem_seg_file_name=written("x.png", target.astype(np.uint16)))
    refused("y.png has 4 channels", sem_seg_file_name=written("y.png", np.zeros((20, 30, 4), np.uint8)))
    with pytest.raises(FileNotFoundError, match="z.png"):
        mapper({**record, "sem_seg_file_name": str(tmp_path / "z.png")})
    (tmp_path / "c.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    refused("c.png is truncated", file_name=str(tmp_path / "c.png"))
    colored = Image.fromarray(image, "P")
    colored.putpalette([9, 5, 1] * 256)
    colored.save(tmp_path / "d.png")
    refused("d.png has a palette of colors", file_name=str(tmp_path / "d.png"))


def masks_of(target):
    """The same target as programs save it."""
    colors = Image.fromarray(target, "P")
    colors.putpalette([0, 0, 0, 128, 0, 0])
    greys = Image.fromarray(1 - target, "P")
    greys.putpalette([255, 255, 255, 0, 0, 0])
    return {
        "0 and 1": Image.fromarray(target),
        "0 and 255": Image.fromarray(255 * target),
        "bilevel": Image.fromarray(255 * target).convert("1"),
        "palette of colours": colors,
        "palette of greys, white first": greys,
        "quantized": Image.fromarray(255 * target).quantize(),
    }


@pytest.mark.parametrize("kind", masks_of(np.eye(2, dtype=np.uint8)))
def test_masks_and_images_as_other_programs_write_them(tmp_path, kind):
    image = np.arange(600, dtype=np.uint8).reshape(20, 30)
    target = np.zeros((20, 30), np.uint8)
    target[3:6, 2:9] = 1
    record = {"height": 20, "width": 30, "image_id": 0}
    record |= {"file_name": str(tmp_path / "image.png"), "sem_seg_file_name": str(tmp_path / "target.png")}
    Image.fromarray(image).convert("P").save(record["file_name"])
    masks_of(target)[kind].save(record["sem_seg_file_name"])
    sample = PathfinderDatasetMapper()(record)
    assert np.array_equal(sample["image"][0], image) and np.array_equal(sample["sem_seg"], target)
    # Evaluation reads the target by itself where a record comes without it.
    assert np.array_equal(load_stimulus(record)[1], target)


def test_255_is_ignored_with_and_without_1(tmp_path):
    record = {"file_name": str(tmp_path / "a.png"), "height": 4, "width": 5, "image_id": 0}
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(record["file_name"])
    for labels in (np.full((4, 5), 255, np.uint8), np.array([[0, 1, 255, 255, 0]] * 4, np.uint8)):
        Image.fromarray(labels).save(tmp_path / "t.png")
        sample = PathfinderDatasetMapper()({**record, "sem_seg_file_name": str(tmp_path / "t.png")})
        assert np.array_equal(sample["sem_seg"], labels)
