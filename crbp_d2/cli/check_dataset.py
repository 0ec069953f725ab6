"""Check COCO-panoptic data sets before training.

tools/check_dataset.py --panoptic-json train.json --panoptic-root train --image-root images --config-file my.yaml
tools/check_dataset.py --panoptic-json train.json val.json --panoptic-root train val --image-root images images

Prints one table of faults and exits with 1; prints nothing and exits with 0 where all is valid.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from tqdm import tqdm

from crbp_d2.config_file import load_config
from crbp_d2.data.panoptic.faults import KINDS, fault_table
from crbp_d2.doctor.repair import repair_panoptic_dataset
from crbp_d2.doctor.report import PanopticFiles, check_panoptic_datasets


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    several: dict[str, Any] = {"action": "append", "nargs": "+", "required": True}
    parser.add_argument(
        "--panoptic-json", **several, metavar="JSON", help="in COCO-panoptic format; several: one a set"
    )
    parser.add_argument("--panoptic-root", **several, metavar="DIR", help="of the PNGs; one a set, or one for all")
    parser.add_argument("--image-root", **several, metavar="DIR", help="of the images; one a set, or one for all")
    parser.add_argument("--instances-json", action="append", nargs="+", default=[], metavar="JSON",
                        help="in COCO-detection format; one a set, '' for none")  # fmt: skip
    parser.add_argument("--config-file", metavar="YAML", help="whose class counts the sets must have")
    parser.add_argument("--fix", metavar="OUT", help="write repaired copies of what can be repaired into this folder")
    parser.add_argument("--ignore", nargs="+", default=[], choices=KINDS, metavar="FAULT",
                        help="fault types to ignore: " + ", ".join(KINDS))  # fmt: skip
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """The exit status; SystemExit with 2 for arguments that do not go together."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # names in any script, whatever the terminal can show
            stream.reconfigure(errors="backslashreplace")
    parser = argument_parser()
    args = parser.parse_args(arguments)
    sets = _sets(args, parser)
    cfg = _config(args.config_file, parser)
    settings = {"cfg": cfg, "workers": args.workers, "progress": _progress}
    faults = [f for f in check_panoptic_datasets(sets, **settings) if f.kind not in args.ignore]
    if not faults:
        return 0
    print(fault_table(faults))
    if args.fix:
        _repair(sets, args.fix, parser.prog)
    return 1


def _sets(args: argparse.Namespace, parser: argparse.ArgumentParser) -> list[PanopticFiles]:
    columns = {
        key: [value for part in getattr(args, key) for value in part]
        for key in ("panoptic_json", "panoptic_root", "image_root", "instances_json")
    }
    count = len(columns["panoptic_json"])
    for key, values in columns.items():
        if key in ("panoptic_root", "image_root") and len(values) == 1:
            columns[key] = values * count
        elif key == "instances_json":
            values += [""] * (count - len(values))
        if len(columns[key]) != count:
            option = "--" + key.replace("_", "-")
            parser.error(f"{option} is given {len(values)} times, but --panoptic-json {count} times")
    return [PanopticFiles(*files) for files in zip(*columns.values(), strict=True)]


def _config(path: str | None, parser: argparse.ArgumentParser) -> CfgNode | None:
    if path is None:
        return None
    try:
        return load_config(path)
    except (KeyError, ValueError) as error:
        parser.error(str(error.args[0]))


def _progress(tasks, count: int):
    return tqdm(tasks, total=count, desc="images, by 32", disable=not sys.stderr.isatty(), leave=False)


def _repair(sets: Sequence[PanopticFiles], out: str, name: str) -> None:
    for k, files in enumerate(sets):
        folder = out if len(sets) == 1 else os.path.join(out, str(k))
        try:
            copy = repair_panoptic_dataset(files, folder)
        except (OSError, ValueError) as error:
            print(f"\n{files.panoptic_json} cannot be repaired: {error}")
            continue
        left = check_panoptic_datasets([copy])
        print(f"\nA repaired copy is in {folder}: {name} --panoptic-json {copy.panoptic_json} --panoptic-root "
              f"{copy.panoptic_root} --image-root {copy.image_root}")  # fmt: skip
        print(f"What could not be repaired:\n{fault_table(left)}" if left else "Nothing is wrong with it.")
