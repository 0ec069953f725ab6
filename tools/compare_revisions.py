"""Compare what two revisions of crbp_d2 compute, for every config and every committed checkpoint.

python -m tools.compare_revisions cdbb1ad              (against the working tree)
python -m tools.compare_revisions cdbb1ad HEAD --only PF6s

A piece of work is one inference and one training step on fixed inputs: outputs, losses and gradients. Weights without a
checkpoint depend on their names and shapes only. Each revision runs in a process of its own, in one thread. Prints a
line a work and exits with 1 if one differs by more than the tolerance.

N: batch; H x W: image size.
"""

import argparse
import math
import re
import sys
import tempfile
import traceback
import zlib
from contextlib import ExitStack
from pathlib import Path

import torch
from detectron2.config import LazyConfig, get_cfg, instantiate
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from crbp_d2 import add_crbp_config, modeling  # noqa: F401  (registers its parts)
from tools.revisions import ROOT, Revision, checked_out

CONFIGS, CHECKPOINTS = "configs", "tools/pathfinder_study/results"
# Gradients smaller than this fraction of the largest are compared with that size: some are 0 but for rounding.
NEGLIGIBLE = 1e-3

Results = dict[str, Tensor]


def works_of(folder: Path) -> list[str]:
    """Paths of all configs and checkpoints in a folder, relative to it."""
    configs = [*folder.glob(f"{CONFIGS}/**/*.yaml"), *folder.glob(f"{CONFIGS}/**/*.py")]
    configs = [path for path in configs if "bases" not in path.parts]
    return sorted(str(path.relative_to(folder)) for path in [*configs, *folder.glob(f"{CHECKPOINTS}/**/*.pth")])


def named_weights(model: nn.Module) -> None:
    """Set all parameters to draws that depend on their names and shapes only; recurrent ones are small."""
    for name, parameter in model.named_parameters():
        generator = torch.Generator().manual_seed(zlib.crc32(f"{name} {tuple(parameter.shape)}".encode()))
        noise = torch.randn(parameter.shape, generator=generator)
        scalars = parameter.numel() == len(parameter)
        if scalars:
            values = 0.1 * noise + (0 if name.endswith("bias") else 0.5)
        else:
            values = noise / math.sqrt(parameter[0].numel()) * (0.5 if "recurrence" in name else 1)
        with torch.no_grad():
            parameter.copy_(values)


def model_of(work: str) -> tuple[nn.Module, list[dict]]:
    """The model of a config or checkpoint, with a fixed number of steps and few RoIs, and its inputs."""
    path = Path(work)
    if path.suffix == ".py":
        model = instantiate(LazyConfig.load(work).model)
    else:
        cfg = get_cfg()
        add_crbp_config(cfg)
        cfg.merge_from_file(str(path.with_suffix(".yaml")))
        cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = "cpu", ""
        model = build_model(cfg)
    if path.suffix == ".pth":
        missing = model.load_state_dict(torch.load(work, weights_only=True)["model"], strict=False).missing_keys
        if missing := set(missing) & {name for name, _ in model.named_parameters()}:
            raise ValueError(f"{work} lacks {missing}")
    else:
        named_weights(model)
    for module in model.modules():
        solver = getattr(module, "solver", None)
        while solver is not None:
            if hasattr(solver, "low"):
                solver.low = solver.high = solver.steps
            solver = getattr(solver, "solver", None)
    if hasattr(model, "roi_heads"):
        model.proposal_generator.post_nms_topk = {True: 50, False: 50}
        model.roi_heads.batch_size_per_image = 16
        model.roi_heads.box_predictor.test_score_thresh = 0.0
        model.roi_heads.box_predictor.test_topk_per_image = 4
        return model, scenes(2 if "R18" in work else 1)
    size = 150 if "PF14" in str(path) or "PF2" in str(path) else 48
    return model, contours(1 if size > 48 else 2, size)


def contours(samples: int, size: int) -> list[dict]:
    """Images of six wandering dashed lines; the first line is the target."""
    generator = torch.Generator().manual_seed(0)
    inputs = []
    for _ in range(samples):
        image, target = torch.zeros(1, size, size), torch.zeros(size, size, dtype=torch.long)
        for line in range(6):
            angles = 0.3 * torch.randn(size // 2, generator=generator).cumsum(0) + 6.3 * torch.rand(
                1, generator=generator
            )
            steps = torch.stack([angles.sin(), angles.cos()])
            start = size * (0.2 + 0.6 * torch.rand(2, 1, generator=generator))
            rows, columns = (start + steps.cumsum(1))[:, torch.arange(size // 2) % 4 > 0].long().clamp(0, size - 1)
            image[0, rows, columns] = 255
            if line == 0:
                target[rows, columns] = 1
        inputs.append({"image": image, "sem_seg": target, "height": size, "width": size})
    return inputs


def scenes(samples: int, size: int = 96) -> list[dict]:
    """Noisy images of four rectangles, things of classes 0 to 3."""
    generator = torch.Generator().manual_seed(0)
    inputs = []
    for _ in range(samples):
        corners = (0.6 * size * torch.rand(4, 2, generator=generator)).long()
        boxes = torch.cat([corners, corners + 12 + (0.25 * size * torch.rand(4, 2, generator=generator)).long()], 1)
        masks = torch.zeros(4, size, size, dtype=torch.bool)
        image = torch.randint(100, (3, size, size), generator=generator)
        for number, (left, top, right, bottom) in enumerate(boxes.tolist()):
            masks[number, top:bottom, left:right] = True
            image[number % 3, top:bottom, left:right] += 100
        things = Instances((size, size), gt_boxes=Boxes(boxes.float()), gt_masks=BitMasks(masks))
        things.gt_classes = torch.arange(4)
        semantic = torch.randint(3, (size, size), generator=generator)
        inputs.append({"image": image.byte(), "instances": things, "sem_seg": semantic, "height": size, "width": size})
    return inputs


def outputs_of(model: nn.Module, inputs: list[dict]) -> Results:
    """Outputs of an inference, probabilities of the masks before they are pasted."""
    model.eval()
    torch.manual_seed(0)
    with torch.no_grad():
        if not hasattr(model, "roi_heads"):
            return {f"output {i}": output["sem_seg"] for i, output in enumerate(model(inputs))}
        detections, semantic = model.inference(inputs, do_postprocess=False)
    results = {"output semantic": semantic}
    for i, found in enumerate(detections):
        results |= {f"output {i} boxes": found.pred_boxes.tensor, f"output {i} scores": found.scores}
        results[f"output {i} masks"] = found.pred_masks
    return results


def training_step(model: nn.Module, inputs: list[dict]) -> Results:
    """Losses and gradients of one training step."""
    model.train()
    torch.manual_seed(0)
    with EventStorage():
        losses = model(inputs)
    sum(losses.values()).backward()
    gradients = {f"gradient {name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {**{f"loss {name}": loss.detach() for name, loss in losses.items()}, **gradients}


def serve(file: str) -> None:
    """For every work on a line of standard input: its results go to `file`, its error or "ready" to the output."""
    torch.set_num_threads(1)
    for line in sys.stdin:
        try:
            model, inputs = model_of(line.strip())
            torch.save({**outputs_of(model, inputs), **training_step(model, inputs)}, file)
            print("ready", flush=True)
        except Exception as error:  # any error of a revision is a result
            traceback.print_exc()
            print(f"{type(error).__name__}: {error}".splitlines()[0], flush=True)


def largest_difference(before: Results, now: Results) -> tuple[float, str]:
    """Largest relative difference of two works and the tensor that has it; 0 means bit for bit.

    A tensor is compared relative to its largest value; see NEGLIGIBLE for gradients.
    """
    if names := before.keys() ^ now.keys():
        return math.inf, f"only in one: {', '.join(sorted(names)[:4])}"
    scale = max((g.abs().max().item() for name, g in before.items() if name.startswith("gradient")), default=0)
    worst = (0.0, "")
    for name, a in before.items():
        b = now[name]
        if a.shape != b.shape:
            return math.inf, f"{name}: {tuple(a.shape)} and {tuple(b.shape)}"
        if torch.equal(a, b):
            continue
        size = max(a.abs().max().item(), NEGLIGIBLE * scale if name.startswith("gradient") else 0)
        difference = (a - b).abs().max().item() / size if size else math.inf
        worst = max(worst, (math.inf if math.isnan(difference) else difference, name))
    return worst


def compare(before: Path, now: Path, works: list[str], tolerance: float) -> bool:
    """Print a line a work; whether all are within the tolerance."""
    within = True
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        files = [f"{folder}/{side}.pt" for side in ("before", "now")]
        script = Path(__file__).resolve()
        revisions = [
            stack.enter_context(Revision(path, script, "--serve", file))
            for path, file in zip((before, now), files, strict=True)
        ]
        for work in works:
            answers = [revision.answer(work) for revision in revisions]
            if answers == ["ready", "ready"]:
                difference, name = largest_difference(*(torch.load(file) for file in files))
                good = difference <= tolerance
                text = f"{difference:.1e}  {name}" if name else "equal"
            else:
                good, text = False, f"before: {answers[0]}; now: {answers[1]}"
            within &= good
            print(f"{'' if good else 'DIFFERS  '}{work}  {text}", flush=True)
    return within


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", nargs="?", default="HEAD", help="revision")
    parser.add_argument("now", nargs="?", default=".", help="revision; default: the working tree")
    parser.add_argument("--only", default="", metavar="PATTERN", help="works whose path matches a regular expression")
    parser.add_argument("--tolerance", type=float, default=1e-6, help="relative; default: %(default)s")
    parser.add_argument("--serve", metavar="FILE", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve)
        return
    with ExitStack() as stack:
        folders = [
            ROOT if revision == "." else stack.enter_context(checked_out(revision, "crbp_d2", CONFIGS, CHECKPOINTS))
            for revision in (arguments.before, arguments.now)
        ]
        found = [[work for work in works_of(folder) if re.search(arguments.only, work)] for folder in folders]
        for work in sorted(set(found[0]) ^ set(found[1])):
            print(f"only {'before' if work in found[0] else 'now'}: {work}")
        if not (both := sorted(set(found[0]) & set(found[1]))):
            raise SystemExit(f"compare_revisions: no config or checkpoint of both revisions matches {arguments.only!r}")
        before, now = folders
        if not compare(before, now, both, arguments.tolerance):
            raise SystemExit(1)


if __name__ == "__main__":
    main()
