"""Convert a checkpoint released by the paper's authors into one for MODEL.WEIGHTS.

tools/convert_authors_weights.py --model panoptic released.pth converted.pth
tools/train_net.py --config-file configs/panoptic_R50_crbp.yaml --eval-only MODEL.WEIGHTS converted.pth
"""

import argparse
from pathlib import Path

import torch

from crbp_d2.checkpoint.released import LAYOUTS, convert, load_released
from crbp_d2.checkpoint.zoo import get
from crbp_d2.utils.errors import exit_with
from crbp_d2.utils.files import write_atomically

CONFIGS = {"panoptic": "panoptic_R50_crbp.yaml", "pathfinder": "pathfinder/PF14_hgru_crbp_released.yaml"}


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(LAYOUTS), required=True, help="what the released file holds")
    parser.add_argument("released", metavar="IN", type=Path)
    parser.add_argument("converted", metavar="OUT", type=Path)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Raises SystemExit with one line on a file that cannot be converted."""
    args = argument_parser().parse_args(arguments)
    config = CONFIGS[args.model]
    try:
        if args.converted.resolve() == args.released.resolve():
            raise ValueError(f"OUT is the file IN: {args.released}")
        theirs = load_released(args.released, args.model)
        model = get(config, "MODEL.WEIGHTS", "", device="cpu")
        conversion = convert(theirs, args.model, model.state_dict())
        write_atomically(args.converted, lambda file: torch.save({"model": conversion.parameters}, file))
    except (OSError, ValueError) as error:
        exit_with(error)
    print(f"{args.converted}: {len(conversion.parameters)} tensors for MODEL.WEIGHTS of {config}")
    for name in conversion.left_out:
        print(f"left out, no place in the model: {name}")
