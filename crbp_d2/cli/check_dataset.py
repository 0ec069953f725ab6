"""Find the faults of COCO-panoptic and COCO-instance data sets before a training.

tools/check_dataset.py --panoptic-json train.json --panoptic-root train --image-root images --config-file my.yaml
tools/check_dataset.py --panoptic-json train.json val.json --panoptic-root train val --image-root images images
tools/check_dataset.py --instances-json train.json --image-root images

Prints one table of faults and exits with 1; prints nothing and exits with 0 for valid data sets.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from crbp_d2.config_file import load_config
from crbp_d2.data.panoptic.faults import KINDS, fault_table
from crbp_d2.doctor.repair import repair_panoptic_dataset
from crbp_d2.doctor.report import PanopticFiles, check_instance_dataset, check_panoptic_datasets


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    several: dict[str, Any] = {"action": "append", "nargs": "+", "default": []}
    parser.add_argument("--panoptic-json", **several, metavar="JSON", help="COCO-panoptic annotations, one per set")
    parser.add_argument("--panoptic-root", **several, metavar="DIR", help="folder of the PNGs, one per set or for all")
    parser.add_argument("--image-root", **several, required=True, metavar="DIR",
                        help="folder of the images, one per set or for all")  # fmt: skip
    parser.add_argument("--instances-json", **several, metavar="JSON",
                        help="COCO-detection annotations, of panoptic sets ('' for none) or by themselves")  # fmt: skip
    parser.add_argument("--config-file", metavar="YAML", help="config whose class counts the sets must have")
    parser.add_argument("--fix", metavar="OUT", help="write repaired copies of panoptic sets into this folder")
    parser.add_argument("--ignore", nargs="+", default=[], choices=KINDS, metavar="FAULT",
                        help="fault types to ignore: " + ", ".join(KINDS))  # fmt: skip
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one per core)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """The exit status; SystemExit with 2 for arguments that contradict each other."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # names in any script, whatever the terminal can show
            stream.reconfigure(errors="backslashreplace")
    parser = argument_parser()
    args = parser.parse_args(arguments)
    rows = _rows(args, parser)
    try:
        cfg = load_config(args.config_file) if args.config_file else None
    except (KeyError, ValueError) as error:
        parser.error(str(error.args[0]))
    settings = {"cfg": cfg, "workers": args.workers, "progress": _progress}
    if args.panoptic_json:
        sets = [PanopticFiles(*row) for row in rows]
        faults = check_panoptic_datasets(sets, **settings)
    else:
        sets = []
        faults = [f for row in rows for f in check_instance_dataset(row[-1], row[-2], **settings)]
    faults = [fault for fault in faults if fault.kind not in args.ignore]
    if not faults:
        return 0
    print(fault_table(faults))
    if args.fix:
        _repair(sets, args.fix, parser.prog)
    return 1


def _rows(args: argparse.Namespace, parser: argparse.ArgumentParser) -> list[tuple[str, ...]]:
    """Panoptic JSON and folder, image folder and instance JSON of each set."""
    keys = ("panoptic_json", "panoptic_root", "image_root", "instances_json")
    columns = {key: [value for part in getattr(args, key) for value in part] for key in keys}
    main = "panoptic_json" if columns["panoptic_json"] else "instances_json"
    if not columns[main] or (main == "instances_json" and (args.panoptic_root or args.fix)):
        parser.error("give --panoptic-json and --panoptic-root, or --instances-json without --panoptic-root and --fix")
    count = len(columns[main])
    for key, values in columns.items():
        if key in ("panoptic_root", "image_root") and len(values) == 1:
            values *= count
        elif key == "instances_json" or (key != "image_root" and main != "panoptic_json"):
            values += [""] * (count - len(values))
        if len(values) != count:
            option, other = ("--" + name.replace("_", "-") for name in (key, main))
            parser.error(f"{option} is given {len(values)} times, but {other} {count} times")
    return list(zip(*columns.values(), strict=True))


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
