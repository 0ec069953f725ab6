"""Parameters and FLOPs of a model by part, and of its recurrences by step.

tools/analyze_model.py --config-file configs/panoptic_R50_crbp.yaml --size 800 1333
"""

import argparse

import torch
from detectron2.modeling import build_model
from tabulate import tabulate

from crbp_d2.checkpoint.loading import Checkpointer
from crbp_d2.config_file import load_config
from crbp_d2.modeling.compiled import check_compiled_part
from crbp_d2.modeling.flops import analyze
from crbp_d2.utils.errors import exit_with


def main(arguments: list[str] | None = None) -> None:
    """Raises SystemExit with one line on an invalid config."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, metavar="YAML")
    parser.add_argument("--size", type=int, nargs=2, default=(800, 800), metavar=("H", "W"), help="of the image")
    parser.add_argument("--weights", default="", help="default: random ones, which find other RoIs than trained ones")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="change the config")
    args = parser.parse_args(arguments)
    if min(args.size) < 32:
        parser.error(f"--size is {args.size[0]} {args.size[1]}; at least 32")
    try:
        cfg = load_config(args.config_file, args.opts)
        if not torch.cuda.is_available():
            cfg.MODEL.DEVICE = "cpu"
        check_compiled_part(cfg)
        model = build_model(cfg).eval()
        if args.weights:
            Checkpointer(model, complete=True).load(args.weights)
    except (OSError, KeyError, ValueError, AssertionError) as error:
        exit_with(error)
    parts, costs, rois = analyze(cfg, model, tuple(args.size))
    total = parts[0].flops
    rows = [[p.name, f"{p.parameters:,}", f"{p.flops / 1e9:.3f}", f"{p.flops / total:.1%}"] for p in parts]
    print(tabulate(rows, ["part", "parameters", "GFLOPs", "fraction"], tablefmt="pipe", disable_numparse=True))
    print(f"\nOne image of {args.size[0]} x {args.size[1]} px" + (f", {rois} RoIs in the mask head" if rois else ""))
    if costs:
        rows = [
            [c.name, " x ".join(map(str, c.drive)), f"{c.parameters:,}", f"{c.flops / 1e9:.4f}", str(c.steps),
             f"{c.steps * c.flops / 1e9:.3f}"]
            for c in costs
        ]  # fmt: skip
        heads = ["recurrence", "one sample", "parameters of the cell", "GFLOPs a step", "steps", "GFLOPs a sample"]
        print("\n" + tabulate(rows, heads, tablefmt="pipe", disable_numparse=True))
