"""Best checkpoint, averaged weights, clipping, accumulation, bfloat16 and validation losses, by their keys."""

import copy
import json

import pytest
import torch
from torch import nn

from crbp_d2.engine import Trainer
from crbp_d2.engine.averaging import AveragedWeights
from crbp_d2.engine.optimizer import build_optimizer
from crbp_d2.engine.settings import check_settings
from crbp_d2.engine.validation import validation_inputs, validation_losses

QUICK = ["SOLVER.MAX_ITER", 4, "TEST.PICTURES", 0, "TEST.STEPS_TO_EVALUATE", (), "SOLVER.WARMUP_ITERS", 0]


def trained(cfg):
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    return trainer


def weights(path):
    return torch.load(path, weights_only=True)["model"]


def test_the_best_checkpoint_is_that_of_the_best_evaluation(pathfinder_config, tmp_path):
    cfg = pathfinder_config(*QUICK, "OUTPUT_DIR", str(tmp_path), "TEST.EVAL_PERIOD", 1, "TEST.BEST_METRIC",
                            "pathfinder/balanced_accuracy", "SOLVER.CHECKPOINT_PERIOD", 1)  # fmt: skip
    trainer = trained(cfg)
    scores = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert scores
    figures = trainer.storage.history("pathfinder/balanced_accuracy").values()
    best = max(figures, key=lambda pair: pair[0])[1]
    name = "model_final.pth" if best == 3 else f"model_{best:07d}.pth"
    expected, found = weights(tmp_path / name), weights(tmp_path / "model_best.pth")
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


def test_the_average_is_exponential_and_survives_a_resume(pathfinder_config, tmp_path):
    options = [*QUICK, "SOLVER.EMA.ENABLED", True, "SOLVER.EMA.DECAY", 0.75, "SOLVER.CHECKPOINT_PERIOD", 1]
    cfg = pathfinder_config(*options, "OUTPUT_DIR", str(tmp_path))
    trained(cfg)
    steps = [weights(tmp_path / f"model_{k:07d}.pth") for k in range(3)] + [weights(tmp_path / "model_final.pth")]
    name = "sem_seg_head.predictor.weight"
    average = steps[0][name]
    for step in steps[1:]:
        average = 0.75 * average + 0.25 * step[name]
    torch.testing.assert_close(weights(tmp_path / "model_ema.pth")[name], average)
    (tmp_path / "model_final.pth").unlink()
    (tmp_path / "model_0000003.pth").unlink(missing_ok=True)
    (tmp_path / "model_0000002.pth").unlink()
    (tmp_path / "last_checkpoint").write_text("model_0000001.pth")
    resumed = Trainer(cfg, resume=True)
    resumed.resume_or_load(resume=True)
    assert resumed.start_iter == 2
    resumed.train()
    torch.testing.assert_close(weights(tmp_path / "model_ema.pth")[name], average)


def test_averaged_weights_are_lent_and_given_back():
    model = nn.Linear(2, 2)
    hook = AveragedWeights(model, 0.9, "")
    own = model.weight.detach().clone()
    nn.init.zeros_(hook.average.module.weight)
    with hook.applied():
        assert not model.weight.any()
    assert torch.equal(model.weight, own)


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_full_model_clipping_is_by_one_norm(pathfinder_config, name):
    clipping = {"ENABLED": True, "CLIP_TYPE": "full_model", "CLIP_VALUE": 0.5}
    options = [part for key, value in clipping.items() for part in (f"SOLVER.CLIP_GRADIENTS.{key}", value)]
    cfg = pathfinder_config("SOLVER.OPTIMIZER", name, *options)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    optimizer = build_optimizer(cfg, model)
    gradients = [torch.randn_like(p) for p in model.parameters()]
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        parameter.grad = gradient.clone()
    optimizer.step()
    norm = torch.stack([g.norm() for g in gradients]).norm()
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient * 0.5 / norm, rtol=1e-4, atol=1e-6)


def test_accumulation_by_its_key_halves_what_a_forward_pass_sees(pathfinder_config, tmp_path):
    sizes = []
    cfg = pathfinder_config(*QUICK, "SOLVER.MAX_ITER", 1, "SOLVER.ACCUMULATE", 2, "DATASETS.TEST", (), "OUTPUT_DIR",
                            str(tmp_path))  # fmt: skip
    trainer = Trainer(cfg)
    trainer.model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    trainer.train()
    assert sizes == [2, 2] and cfg.SOLVER.IMS_PER_BATCH == 4


def test_bfloat16_trains_on_a_cpu_and_float16_does_not(pathfinder_config, tmp_path):
    cfg = pathfinder_config(*QUICK, "SOLVER.MAX_ITER", 2, "SOLVER.AMP.ENABLED", True, "SOLVER.AMP.DTYPE", "bfloat16",
                            "DATASETS.TEST", (), "OUTPUT_DIR", str(tmp_path))  # fmt: skip
    seen = set()
    trainer = Trainer(cfg)
    trainer.model.sem_seg_head.predictor.register_forward_hook(lambda module, args, out: seen.add(out.dtype))
    trainer.train()
    assert seen == {torch.bfloat16}
    assert all(p.isfinite().all() for p in trainer.model.parameters())
    with pytest.raises(ValueError, match="SOLVER.AMP.DTYPE is 'float16'"):
        check_settings(pathfinder_config("SOLVER.AMP.ENABLED", True))


def test_validation_losses_leave_no_trace_in_the_model(pathfinder_config, tmp_path):
    cfg = pathfinder_config(*QUICK, "OUTPUT_DIR", str(tmp_path), "TEST.VALIDATION_IMAGES", 3, "TEST.EVAL_PERIOD", 2,
                            "MODEL.RECURRENCE.PENALTY.BOUND", 0.0)  # fmt: skip
    trainer = trained(cfg)
    assert [k for _, k in trainer.storage.history("validation/total_loss").values()] == [1, 3]
    model = trainer.checkpointer.model
    before = copy.deepcopy(model.state_dict())
    generator = torch.get_rng_state()
    with torch.no_grad():
        losses = validation_losses(model.eval(), validation_inputs(cfg, 3))
    assert losses["loss_lipschitz"] > 0 and not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)
    assert trainer.storage.history("validation/loss_lipschitz").latest() == pytest.approx(losses["loss_lipschitz"])


def test_validation_losses_are_means_over_images():
    class Mean(nn.Module):
        def forward(self, batch):
            return {"loss": torch.tensor(batch).mean()}

    assert validation_losses(Mean(), [[1.0, 2.0], [6.0]]) == {"loss": 3}


def test_the_penalty_of_validation_is_that_of_training(pathfinder_config, tmp_path):
    cfg = pathfinder_config(*QUICK, "OUTPUT_DIR", str(tmp_path), "MODEL.RECURRENCE.PENALTY.BOUND", 0.0)
    model = Trainer.build_model(cfg).train()
    batches = list(validation_inputs(cfg, 3))
    training = [model(batch)["loss_lipschitz"] for batch in batches]
    with torch.no_grad():
        own = [model(batch)["loss_lipschitz"] for batch in batches]
        hook = validation_losses(model, batches)["loss_lipschitz"]
    assert all(loss.requires_grad and loss > 0 for loss in training) and not any(loss.requires_grad for loss in own)
    torch.testing.assert_close(torch.stack(own), torch.stack(training).detach())
    assert hook == pytest.approx(torch.stack(training).mean().item(), rel=1e-5)


def test_evaluation_and_validation_keep_every_mode(pathfinder_config, tmp_path):
    cfg = pathfinder_config(*QUICK, "OUTPUT_DIR", str(tmp_path))
    model = Trainer.build_model(cfg)
    for training in (True, False):
        model.train(training)
        model.sem_seg_head.norm.train(not training)
        before = [module.training for module in model.modules()]
        Trainer.test(cfg, model)
        validation_losses(model, validation_inputs(cfg, 1))
        assert [module.training for module in model.modules()] == before and len(set(before)) == 2


def test_a_model_within_the_trainer_is_saved_and_copied(pathfinder_config, tmp_path):
    trainer = Trainer(pathfinder_config(*QUICK, "OUTPUT_DIR", str(tmp_path), "DATASETS.TEST", ()))
    torch.save(trainer.model, tmp_path / "model.pt")
    loaded = torch.load(tmp_path / "model.pt", weights_only=False)
    copied = copy.deepcopy(trainer.model)
    trainer.train()
    again = loaded.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in copied.state_dict().items())
    assert not torch.equal(trainer.model.sem_seg_head.predictor.weight, again["sem_seg_head.predictor.weight"])


def test_an_unknown_optimizer_is_named_with_the_nearest(pathfinder_config):
    with pytest.raises(ValueError, match="SOLVER.OPTIMIZER is 'adm'.*'Adam'"):
        build_optimizer(pathfinder_config("SOLVER.OPTIMIZER", "adm"), nn.Linear(1, 1))
