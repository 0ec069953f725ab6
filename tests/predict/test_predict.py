"""tools/predict.py on new images, with no data set registered under the names of the training."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import panoptic_set
from helpers.paths import ROOT
from helpers.programs import tool

from tools.data_sets import free

NAME = "predict_set"
TINY = ["SEED", 0, "DATASETS.TRAIN", f"('{NAME}',)", "DATASETS.TEST", "()", "SOLVER.IMS_PER_BATCH", 2,
        "SOLVER.MAX_ITER", 1, "DATALOADER.NUM_WORKERS", 0, "MODEL.RECURRENCE.STEPS", 3,
        "MODEL.ROI_HEADS.NUM_CLASSES", 2, "MODEL.DEVICE", "cpu", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 3,
        "INPUT.MIN_SIZE_TEST", 64, "MODEL.RPN.POST_NMS_TOPK_TEST", 5,
        # So that an untrained model finds things.
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.01]  # fmt: skip


def predict(*arguments):
    tool("predict", *arguments)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """As a user does, from a folder that is not the repository's."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def panoptic_run(tmp_path_factory):
    root = tmp_path_factory.mktemp("predict")
    panoptic_set.write_set(root)
    panoptic_set.register(root, NAME)
    config = str(ROOT / "configs/quick/panoptic_R18_recurrent_toy.yaml")
    tool("train_net", "--config-file", config, *TINY, "OUTPUT_DIR", root / "run")
    free(NAME, f"{NAME}_as_files")
    return root


@pytest.fixture(scope="module")
def pathfinder_run(tmp_path_factory):
    root = tmp_path_factory.mktemp("predict_contours")
    options = ["SOLVER.MAX_ITER", 1, "DATASETS.TEST", "()", "MODEL.DEVICE", "cpu", "OUTPUT_DIR", root / "run"]
    tool("train_net", "--config-file", ROOT / "configs/quick/pathfinder_hgru_crbp_instant_test.yaml", *options)
    return root


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "own.jpg"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (48, 72, 3), dtype=np.uint8))
    return path


def test_names_ids_strip_and_files_without_the_data_set(panoptic_run, picture, tmp_path, capsys):
    kept = json.loads((panoptic_run / "run/metadata.json").read_text())
    assert kept["thing_classes"] == ["cat", "dog"] and kept["stuff_classes"] == ["things", "sea", "sky"]
    predict("own.jpg", "--run", panoptic_run / "run", "--output", "out", "--steps", 1, 3, "--score", 0.01,
            "--settling", "--json")  # fmt: skip
    drawn = cv2.imread("out/own.png")
    # input, t = 1, t = 3, settling: each 480 high and 720 wide, below a title.
    assert drawn.shape == (480 + 34, 4 * 720, 3)
    # An untrained model may see nothing but things, so what a panel shows is not asked.
    assert len(np.unique(drawn[34:, 1440:2156])) > 2
    images = json.loads((tmp_path / "out/images.json").read_text())["images"]
    assert images == [{"id": 1, "file_name": "own.jpg", "height": 48, "width": 72}]
    results = json.loads((tmp_path / "out/coco_instances_results.json").read_text())
    assert results and {r["category_id"] for r in results} <= {9, 12} and {r["image_id"] for r in results} == {1}
    assert results[0]["segmentation"]["size"] == [48, 72]
    panoptic = json.loads((tmp_path / "out/panoptic_predictions.json").read_text())
    assert {c["id"]: c["name"] for c in panoptic["categories"]} == {9: "cat", 12: "dog", 21: "sea", 30: "sky"}
    (annotation,) = panoptic["annotations"]
    pixels = cv2.imread(f"out/panoptic_predictions/{annotation['file_name']}")[..., ::-1].astype(int)
    ids = set(np.unique(pixels @ [1, 256, 65536]).tolist()) - {0}
    assert ids == {segment["id"] for segment in annotation["segments_info"]}
    assert {segment["category_id"] for segment in annotation["segments_info"]} <= {9, 12, 21, 30}


def results_of(run, picture, *options):
    """COCO results of a picture in the order of their scores."""
    predict(picture, "--run", run, "--output", "out", "--json", *options)
    return sorted(json.loads(Path("out/coco_instances_results.json").read_text()), key=lambda r: -r["score"])


def test_the_score_is_the_threshold_of_all_that_is_written(panoptic_run, picture, tmp_path, capsys):
    """Also below the one that the run was trained with, and for the segments of a panoptic prediction."""
    every = results_of(panoptic_run / "run", picture)
    assert len(every) >= 2
    between = (every[0]["score"] + every[-1]["score"]) / 2
    above = [result for result in every if result["score"] > between]
    assert 0 < len(above) < len(every)
    assert results_of(panoptic_run / "run", picture, "--score", between) == above
    strict = tmp_path / "strict"
    shutil.copytree(panoptic_run / "run", strict)
    config = (strict / "config.yaml").read_text()
    assert "SCORE_THRESH_TEST: 0.01\n" in config
    (strict / "config.yaml").write_text(config.replace("SCORE_THRESH_TEST: 0.01\n", "SCORE_THRESH_TEST: 0.999\n"))
    assert results_of(strict, picture) == []
    assert results_of(strict, picture, "--score", 0.01) == every
    annotations = json.loads((tmp_path / "out/panoptic_predictions.json").read_text())["annotations"]
    assert {segment["category_id"] for segment in annotations[0]["segments_info"]} & {9, 12}


def test_ids_of_an_image_info_file(panoptic_run, picture, tmp_path, capsys):
    info = tmp_path / "image_info.json"
    info.write_text(json.dumps({"images": [{"id": 4711, "file_name": "own.jpg"}]}))
    run = ["--run", panoptic_run / "run", "--output", tmp_path / "out", "--json", "--image-info", info]
    predict(picture, *run)
    assert json.loads((tmp_path / "out/panoptic_predictions.json").read_text())["annotations"][0]["image_id"] == 4711


def test_grey_pictures_of_any_size_for_pathfinder(pathfinder_run, picture, tmp_path, capsys):
    predict(picture, "--run", pathfinder_run / "run", "--output", "out", "--steps", 2, 5, "--json", "--settling")
    assert cv2.imread(str(tmp_path / "out/own.png")).shape == (480 + 34, 4 * 720, 3)
    labels = cv2.imread(str(tmp_path / "out/semantic_predictions/own.png"), cv2.IMREAD_UNCHANGED)
    assert labels.shape == (48, 72) and set(np.unique(labels)) <= {0, 1}


def test_one_bad_picture_does_not_stop_the_others(panoptic_run, picture, tmp_path, capsys):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(SystemExit, match="bad.png"):
        predict("bad.png", picture, "--run", panoptic_run / "run", "--output", "out")
    assert (tmp_path / "out/own.png").exists()


def test_every_input_has_an_output_of_its_own(panoptic_run, picture, tmp_path, capsys):
    """own.jpg, own.png and own_2.png."""
    image = cv2.imread(str(picture))
    for name in ("own.png", "own_2.png"):
        cv2.imwrite(name, image)
    predict("own.jpg", "own.png", "own_2.png", "--run", panoptic_run / "run", "--output", "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"own.png", "own_2.png", "own_3.png"}


def test_an_output_never_overwrites_an_input(panoptic_run, picture, tmp_path):
    (tmp_path / "mine").mkdir()
    cv2.imwrite("mine/own.png", cv2.imread(str(picture)))
    before = (tmp_path / "mine/own.png").read_bytes()
    with pytest.raises(SystemExit, match="--output mine .* the input mine/own.png"):
        predict("mine", "--run", panoptic_run / "run", "--output", "mine")
    assert (tmp_path / "mine/own.png").read_bytes() == before
    with pytest.raises(SystemExit, match="^predict.py: --output own.jpg is a file"):
        predict("mine", "--run", panoptic_run / "run", "--output", "own.jpg")


def test_a_video_and_a_folder_of_frames_with_the_state_carried(panoptic_run, tmp_path, capsys):
    frames = tmp_path / "frames"
    frames.mkdir()
    video = cv2.VideoWriter(str(tmp_path / "clip.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (72, 48))
    for k in range(3):
        frame = np.full((48, 72, 3), 60 * k, np.uint8)
        cv2.imwrite(str(frames / f"{k}.png"), frame)
        video.write(frame)
    video.release()
    predict("clip.mp4", frames, "--run", panoptic_run / "run", "--output", "out", "--carry-state")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"clip.mp4", "0.png", "1.png", "2.png"}
    drawn = cv2.VideoCapture(str(tmp_path / "out/clip.mp4"))
    assert drawn.get(cv2.CAP_PROP_FRAME_COUNT) == 3 and drawn.get(cv2.CAP_PROP_FRAME_WIDTH) == 2 * 720


@pytest.mark.parametrize(
    "arguments,expected",
    [
        (["nothing.jpg"], "nothing.jpg"),
        (["OWN", "--run", "nowhere"], "nowhere"),
        (["OWN", "--opts", "MODEL.RECURRENCE.STEP", "3"], "STEP"),
        (["OWN", "--weights", "none.pth"], "none.pth"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(panoptic_run, picture, tmp_path, arguments, expected):
    arguments = [str(picture) if a == "OWN" else a for a in arguments]
    with pytest.raises(SystemExit) as stopped:
        predict("--run", panoptic_run / "run", "--output", "out", *arguments)
    assert expected in str(stopped.value) and "\n" not in str(stopped.value)


def test_carrying_needs_a_semantic_head(pathfinder_run, picture, tmp_path):
    run = ["--run", str(pathfinder_run / "run"), "--output", str(tmp_path / "out"), str(picture)]
    with pytest.raises(SystemExit, match="--carry-state.*ContourSegHead"):
        predict(*run, "--carry-state")
