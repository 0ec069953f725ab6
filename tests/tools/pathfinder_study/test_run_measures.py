"""The study's measures of a model against direct computation."""

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model

from crbp_d2 import add_crbp_config
from crbp_d2.data import generate_pathfinder, register_pathfinder
from crbp_d2.evaluation.pathfinder import scores
from tools.pathfinder_study.run_measures import drive_of, principal_axes, probe, quality_by_step, stability, state_space

CONFIG = "configs/pathfinder/PF6s_hgru_crbp.yaml"
STEPS = 3


@pytest.fixture(scope="module")
def model():
    cfg = get_cfg()
    add_crbp_config(cfg)
    cfg.merge_from_file(CONFIG)
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.RECURRENCE.STEPS", STEPS, "MODEL.CONTOUR.PRIOR_PROB", 0.4])
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    with torch.no_grad():
        model.sem_seg_head.predictor.weight.normal_()
    return model


@pytest.fixture(scope="module")
def batches():
    register_pathfinder("PF6s", "measured")
    images, targets = generate_pathfinder("PF6s", 6, seed=5)
    records = [
        {"image": torch.from_numpy(image)[None], "sem_seg": torch.from_numpy(target).long(), "image_id": k}
        for k, (image, target) in enumerate(zip(images, targets, strict=True))
    ]
    return [records[:4], records[4:]]


@torch.no_grad()
def pooled_states(model, batches, steps):
    """Stimuli x steps x C, step by step."""
    rows = []
    for batch in batches:
        drive = model.backbone(torch.stack([record["image"] for record in batch]).float() / 255)["stem"]
        h, states = (torch.zeros_like(drive),), []
        for _ in range(steps):
            h = model.sem_seg_head.recurrence.cell(drive, h)
            states.append(h[0].mean(dim=(2, 3)))
        rows.append(torch.stack(states, dim=1))
    return torch.cat(rows).double().numpy()


def test_quality_is_the_mean_f1_after_each_step(model, batches):
    found = quality_by_step(model, batches, "pathfinder_measured_val", (1, STEPS, 4 * STEPS))
    assert not model.training and len(set(found)) == 3
    for steps, f1 in zip((1, STEPS, 4 * STEPS), found, strict=True):
        model.sem_seg_head.test_steps = steps
        counts = []
        for batch in batches:
            for record, output in zip(batch, model(batch), strict=True):
                a, b = output["sem_seg"].argmax(0) == 1, record["sem_seg"] == 1
                counts.append([int((x & y).sum()) for x, y in ((a, b), (a, ~b), (~a, b), (~a, ~b))])
        model.sem_seg_head.test_steps = None
        assert f1 == pytest.approx(scores(np.array(counts))["F1"].mean(), abs=1e-5)


def test_probe_measures_at_n_and_4n(model, batches):
    values = probe(model, batches, "pathfinder_measured_val", STEPS)
    quality = quality_by_step(model, batches, "pathfinder_measured_val", (STEPS, 4 * STEPS))
    assert [values["f1"], values["f1_far"]] == quality
    followed = stability(model.sem_seg_head.recurrence.cell, drive_of(model, batches[0]), STEPS)
    assert values["penalty"] == pytest.approx(followed["penalty"], rel=1e-5)
    assert values["residual"] == pytest.approx(followed["residual"][STEPS - 1], abs=1e-5)


def test_state_space_is_fitted_up_to_n_and_followed_to_t(model, batches):
    cell = model.sem_seg_head.recurrence.cell
    found = state_space(cell, [drive_of(model, batch) for batch in batches], STEPS)
    pooled = pooled_states(model, batches, 4 * STEPS)
    fitted = pooled[:, :STEPS].reshape(-1, pooled.shape[2])
    values, vectors = np.linalg.eigh(np.cov(fitted.T))
    assert found["explained"] == pytest.approx(values[::-1][:2] / values.sum(), abs=1e-4)
    projection = np.array(found["projection"])
    assert projection.shape == (6, 4 * STEPS, 2) and found["stimuli"] == 6
    truth = (pooled - fitted.mean(0)) @ vectors[:, ::-1][:, :2]
    np.testing.assert_allclose(np.abs(projection), np.abs(truth), atol=1e-4)
    np.testing.assert_allclose(found["pooled_at_N"], pooled[:, STEPS - 1], atol=1e-5)
    np.testing.assert_allclose(found["pooled_at_T"], pooled[:, -1], atol=1e-5)


def test_principal_axes_of_a_known_cloud():
    axes, explained = principal_axes(np.array([[3.0, 1, 0], [-3, 1, 0], [0, 1, 1], [0, 1, -1]]))
    np.testing.assert_allclose(np.abs(axes[:2]), [[1, 0, 0], [0, 0, 1]], atol=1e-12)
    np.testing.assert_allclose(explained, [0.9, 0.1, 0], atol=1e-12)


def test_stability_is_that_of_the_plain_run(model, batches):
    cell = model.sem_seg_head.recurrence.cell.double()
    drive = drive_of(model, batches[0][:1]).double()
    steps = 20
    found = stability(cell, drive, steps)
    h = (torch.zeros_like(drive),)
    with torch.no_grad():
        for _ in range(4 * steps):
            h = cell(drive, h)
    leaf = h[0].requires_grad_()
    (columns,) = torch.autograd.grad(cell(drive, (leaf,))[0].sum(), leaf)
    cell.float()
    assert found["penalty_far"] == pytest.approx((columns - 0.9).clamp(min=0).square().mean().item(), rel=1e-9)
    assert len(found["residual"]) == 16 * steps and len(found["contraction"]) == 4 * steps - 1
    assert len(found["spectral_radius"]) == 1
    # Changes shrink by the leading eigenvalue in the end.
    assert found["contraction"][-1] == pytest.approx(np.median(found["spectral_radius"]), abs=0.02)
