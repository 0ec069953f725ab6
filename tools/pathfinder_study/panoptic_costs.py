"""What the panoptic models on the harder scenes cost: parameters, and the memory of a training step."""

import json
import tempfile
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

from detectron2.engine import default_argument_parser
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventStorage

from crbp_d2.engine import Trainer, setup
from crbp_d2.utils.files import write_text
from tools.benchmarks.live_memory import live_peak
from tools.page import machine

from .harder_scenes import COSTS, RuleCost, config_of, load_costs

# Training steps before the one that is measured; the optimizer makes its buffers in the first.
BEFORE = 2


def keep_costs(rules: Sequence[str], root: Path) -> None:
    """Measure the rules that have no costs yet, and keep them.

    Raises:
        ValueError: see load_costs.
    """
    costs = load_costs(root)
    new = {rule: measure_cost(str(root / config_of(rule))) for rule in rules if rule not in costs}
    if new:
        content = {"costs": {rule: asdict(cost) for rule, cost in (costs | new).items()}, "machine": machine()}
        write_text(root / COSTS, json.dumps(content, indent=1) + "\n")


def measure_cost(config_file: str, *options: str) -> RuleCost:
    """Of the model of a config, in training on the CPU.

    The step that is measured starts from the initial weights and a seed of its own, so that every rule has the same
    proposals: a few objects more or less weigh as much as some steps.
    """
    with tempfile.TemporaryDirectory() as folder:
        same = ["MODEL.DEVICE", "cpu", "SEED", "0"]
        flags = ["--config-file", config_file, "OUTPUT_DIR", folder, *same, *options]
        trainer = Trainer(setup(default_argument_parser().parse_args(flags)))
        initial = deepcopy(trainer.model.state_dict())
        with EventStorage() as trainer.storage:
            trainer.model.train()
            for trainer.iter in range(BEFORE):
                trainer.run_step()
            trainer.model.load_state_dict(initial)
            seed_all_rng(0)
            peak = live_peak(trainer.run_step)
        return RuleCost(sum(parameter.numel() for parameter in trainer.model.parameters()), peak)
