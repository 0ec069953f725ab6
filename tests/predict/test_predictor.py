"""Models applied to images without a data set: channels, and states carried from one to the next."""

import logging

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import Metadata
from detectron2.layers import ShapeSpec

from crbp_d2 import add_crbp_config
from crbp_d2.cells import ConvGRUCell
from crbp_d2.evaluation.drawing import drawable
from crbp_d2.modeling import RecurrentSemSegHead
from crbp_d2.predict.pictures import Predictions, find_inputs
from crbp_d2.predict.predictor import Predictor
from crbp_d2.recurrence import learning_rule


class Segmenter(torch.nn.Module):
    """A recurrent semantic head on the image itself."""

    def __init__(self, channels):
        super().__init__()
        torch.manual_seed(0)
        cell = ConvGRUCell(4, 3)
        for parameter in cell.parameters():
            torch.nn.init.normal_(parameter, std=0.4)
        self.sem_seg_head = RecurrentSemSegHead(
            {"image": ShapeSpec(channels=channels, stride=1)}, recurrence=learning_rule("rbp", cell, steps=3),
            num_classes=3, conv_dims=4, common_stride=1, loss_weight=1.0, ignore_value=255, norm="", readout_norm="",
        )  # fmt: skip

    def forward(self, inputs):
        return [{"sem_seg": self.sem_seg_head({"image": inputs[0]["image"][None] / 255})[0][0]}]


def config(channels):
    cfg = get_cfg()
    add_crbp_config(cfg)
    cfg.MODEL.PIXEL_MEAN, cfg.INPUT.MIN_SIZE_TEST = [0.0] * channels, 16
    if channels == 1:
        cfg.INPUT.FORMAT = "L"
    return cfg


def image(seed, channels=3):
    return np.random.default_rng(seed).integers(0, 255, (8, 10, channels), dtype=np.uint8)


METADATA = Metadata(stuff_classes=["$a$ $", "", "c"])


def predictions(carry_state=True, **settings):
    return Predictions(config(3), Segmenter(3).eval(), METADATA, "", carry_state=carry_state, **settings)


@pytest.mark.parametrize("shape", [(8, 10, 1), (8, 10)])
def test_grey_images_are_resized_and_drawn_as_others(shape):
    model = Segmenter(1).eval()
    predictor = Predictor(config(1), model)
    assert predictor.format == "L" and predictor.inputs(image(0, 1).reshape(shape))[0]["image"].shape == (1, 16, 20)
    drawn, output = Predictions(config(1), model, METADATA, "").predict(image(0, 1).reshape(shape))
    assert drawn.shape == (480 + 34, 2 * 600, 3) and output["sem_seg"].shape == (3, 16, 20)
    # The legend of a contour model would be orange on grey; here classes have colours and names.
    assert np.ptp(drawn[34:, 600:1196].astype(int), axis=2).max() > 30


def by_hand(model, *images, steps):
    """Logits of the last image, the state going through all of them."""
    state, head, predictor = None, model.sem_seg_head, Predictor(config(3), model)
    with torch.no_grad():
        for one in images:
            drive = head.drive({"image": predictor.inputs(one)[0]["image"][None] / 255})
            state = head.recurrence(drive, state=state, steps=steps).state
        return head.read_out(state[0])[0]


@pytest.mark.parametrize("settling", [False, True])
def test_each_step_count_carries_its_own_state(settling):
    strip = predictions(steps=[1, 5], settling=settling)
    with strip.carried():
        for k in (0, 1):
            _, output = strip.predict(image(k))
    expected = by_hand(strip.predictor.model, image(0), image(1), steps=5)
    torch.testing.assert_close(output["sem_seg"], expected)
    assert not torch.allclose(expected, by_hand(strip.predictor.model, image(1), steps=5), atol=1e-3)


def test_a_carried_state_survives_bad_frames_and_inner_contexts():
    model = Segmenter(3).eval()
    head = model.sem_seg_head
    frames = [{"image": torch.from_numpy(image(k)).permute(2, 0, 1)[None] / 255} for k in range(3)]
    bad = {"image": torch.full_like(frames[0]["image"], torch.nan)}

    def last(*sequence):
        state = None
        for frame in sequence:
            state = head.recurrence(head.drive(frame), state=state).state
        return head.read_out(state[0])

    with torch.no_grad():
        with head.carry_state():
            first = head(bad)[0]
            assert first.isnan().any() and torch.equal(head(frames[0])[0], last(frames[0]))
            assert head(bad)[0].isnan().any()
            with head.carry_state():
                assert torch.equal(head(frames[2])[0], last(frames[2]))
            assert torch.equal(head(frames[1])[0], last(frames[0], frames[1]))
        assert torch.equal(head(frames[1])[0], last(frames[1]))


def test_no_formula_is_read_into_class_names():
    names = ["$a$ $", "", "b \\$"]
    assert drawable(Metadata(stuff_classes=names)).stuff_classes == ["\\$a\\$ \\$", "class 1", "b \\$"]


def test_a_video_that_ends_early_is_told(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("crbp_d2"), "propagate", True)
    whole = tmp_path / "whole.avi"
    writer = cv2.VideoWriter(str(whole), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for k in range(8):
        writer.write(np.random.default_rng(k).integers(0, 255, (48, 64, 3), dtype=np.uint8))
    writer.release()
    content = whole.read_bytes()
    (tmp_path / "cut.avi").write_bytes(content[: len(content) // 2])
    (tmp_path / "out").mkdir()
    strip = Predictions(config(3), Segmenter(3).eval(), Metadata(stuff_classes=["a", "b", "c"]), str(tmp_path / "out"))
    for name, told in (("whole.avi", 0), ("cut.avi", 1)):
        caplog.clear()
        assert strip.run(find_inputs([str(tmp_path / name)])) == []
        assert len({message for message in caplog.messages if name in message and "of its 8 frames" in message}) == told
        assert (tmp_path / "out" / name).with_suffix(".mp4").exists()


def test_a_video_begins_anew(tmp_path):
    strip, found = predictions(steps=[2]), []
    predict = strip.predict
    strip.predict = lambda one: found.append(predict(one)) or found[-1]
    strip.folder = tmp_path
    paths = []
    for name in ("a.avi", "b.avi"):
        writer = cv2.VideoWriter(str(tmp_path / name), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
        for k in (1, 2):
            writer.write(np.full((48, 64, 3), 90 * k, np.uint8))
        writer.release()
        paths.append(str(tmp_path / name))
    assert strip.run(find_inputs(paths)) == []
    first, second = [output["sem_seg"] for _, output in found[:2]], [output["sem_seg"] for _, output in found[2:]]
    assert len(second) == 2 and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
