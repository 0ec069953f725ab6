#!/usr/bin/env python
"""Convert a checkpoint released by the paper's authors into one for MODEL.WEIGHTS.

tools/convert_authors_weights.py --model panoptic released.pth converted.pth
tools/train_net.py --config-file configs/panoptic_R50_crbp.yaml --eval-only MODEL.WEIGHTS converted.pth
"""

import argparse
import os
import sys
from pathlib import Path

import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model

from crbp_d2 import add_crbp_config
from crbp_d2.checkpoint.conversion import LAYOUTS, convert, load_released

CONFIGS = {"panoptic": "panoptic_R50_crbp.yaml", "pathfinder": "pathfinder/PF14_hgru_crbp_released.yaml"}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(LAYOUTS), required=True, help="what the released file holds")
    parser.add_argument("released", metavar="IN", type=Path)
    parser.add_argument("converted", metavar="OUT", type=Path)
    args = parser.parse_args(arguments)
    config = Path(__file__).resolve().parent.parent / "configs" / CONFIGS[args.model]
    try:
        if args.converted.resolve() == args.released.resolve():
            raise ValueError(f"OUT is the file IN: {args.released}")
        theirs = load_released(args.released, args.model)
        conversion = convert(theirs, args.model, state_dict_of(config))
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"convert_authors_weights.py: {error}")
    partial = args.converted.with_name(args.converted.name + ".partial")
    torch.save({"model": conversion.parameters}, partial)
    os.replace(partial, args.converted)
    print(f"{args.converted}: {len(conversion.parameters)} tensors for MODEL.WEIGHTS of {config}")
    for name in conversion.left_out:
        print(f"left out, no place in the model: {name}")


def state_dict_of(config: Path) -> dict[str, torch.Tensor]:
    cfg = get_cfg()
    add_crbp_config(cfg)
    cfg.merge_from_file(str(config))
    cfg.MODEL.WEIGHTS, cfg.MODEL.DEVICE = "", "cpu"
    return build_model(cfg).state_dict()


if __name__ == "__main__":
    main()
