"""Write docs/MODEL_ZOO.md from the paper's figures, the records kept here and the folders of new runs.

python -m tools.model_zoo_page
python -m tools.model_zoo_page output/panoptic_R18_crbp_toy output/panoptic_R18_baseline_toy
python -m tools.model_zoo_page output/panoptic_R50_crbp_overfit --processor-seconds 900
"""

import argparse
import hashlib
import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import yaml
from detectron2.config import get_cfg
from detectron2.modeling import build_model

from crbp_d2 import add_crbp_config
from crbp_d2.utils.files import write_text
from tools.page import machine, markdown_table
from tools.pathfinder_study.panoptic_results import TOY, TOY_BASELINE, read_results
from tools.pathfinder_study.paper import PANOPTIC, PATHFINDER_F1

ROOT = Path(__file__).resolve().parents[1]
RECORDS = Path(__file__).with_name("model_zoo_records.json")
PAGE = ROOT / "docs/MODEL_ZOO.md"
# Folders of the study -> training iterations of the weights in them.
STUDIES = {"pathfinder_small": "4,000 or as the config says"}
RESULTS = ROOT / "tools/pathfinder_study/results"
METRICS = (("panoptic_seg", "PQ"), ("pathfinder", "F1"), ("segm", "AP"), ("sem_seg", "mIoU"))
QUICK = ("quick/panoptic_R18_crbp_toy", "quick/panoptic_R18_baseline_toy", "quick/panoptic_R18_recurrent_toy",
         "quick/panoptic_R18_contracting_toy", "quick/panoptic_R50_crbp_overfit")  # fmt: skip


@dataclass(frozen=True)
class Record:
    """Of a run: its main figures, memory in training in MB ("-" without a GPU), SHA-256 of the weights, machine, and
    processor time of the command if it was taken."""

    figure: str
    memory: str
    sha256: str
    machine: str
    processor: str = "-"


def record_of(folder: Path) -> tuple[str, Record]:
    """Name of the config (as in its default OUTPUT_DIR) and the record of a finished run.

    Raises:
        ValueError: no results or weights in the folder.
    """
    results = sorted(folder.glob("inference/*/results.json"))
    weights = next((folder / name for name in ("model_best.pth", "model_final.pth") if (folder / name).is_file()), None)
    if not results or weights is None or not (folder / "config.yaml").is_file():
        raise ValueError(f"{folder} is no finished run: it needs config.yaml, inference/*/results.json and weights")
    figures = json.loads(results[0].read_text())
    group, name = next((pair for pair in METRICS if pair[1] in figures.get(pair[0], {})), ("", ""))
    if not name:
        raise ValueError(f"{results[0]} has none of {', '.join('/'.join(pair) for pair in METRICS)}")
    figure = f"{name} {figures[group][name]:.3f}" if name == "F1" else f"{name} {figures[group][name]:.1f}"
    if things := figures[group].get("PQ_th"):
        figure += f", things {things:.1f}"
    lines = (folder / "metrics.json").read_text().splitlines() if (folder / "metrics.json").is_file() else []
    memory = max((json.loads(line).get("max_mem", 0) for line in lines), default=0)
    return Path(yaml.safe_load((folder / "config.yaml").read_text())["OUTPUT_DIR"]).name, Record(
        figure,
        f"{memory:.0f}" if memory else "-",
        checksum(weights),
        machine(),
    )


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def parameters(config: str) -> int:
    """Trainable parameters of the model of a config below configs/."""
    cfg = get_cfg()
    add_crbp_config(cfg)
    cfg.merge_from_file(str(ROOT / f"configs/{config}.yaml"))
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", ""])
    return sum(p.numel() for p in build_model(cfg).parameters() if p.requires_grad)


def command(config: str, gpus: int = 0) -> str:
    """That trains a config."""
    return f"`tools/train_net.py --config-file configs/{config}.yaml{f' --num-gpus {gpus}' if gpus else ''}`"


def link(config: str) -> str:
    """To a config, from the page."""
    return f"[{config}](../configs/{config}.yaml)"


def page(records: dict[str, Record]) -> str:
    """The page's text."""
    coco = []
    for name, (pq, _, memory) in PANOPTIC.items():
        ours = records.get(name)
        measured = (ours.memory, ours.figure) if ours else ("-", "-")
        coco.append([link(name), f"{parameters(name):,}", measured[0], memory or "-", f"{pq:.2f}", "-", measured[1]])
    contours = []
    for run, (f1, *_) in PATHFINDER_F1.items():
        name = f"pathfinder/PF14_{run}"
        ours = records.get(Path(name).name)
        contours.append([link(name), f"{parameters(name):,}", f"{f1:.3f}", "-", ours.figure if ours else "-"])
    records = study_records() | records
    quick = []
    for name in QUICK:
        ours = records.get(Path(name).name)
        quick.append([link(name), f"{parameters(name):,}", command(name),
                      *((ours.figure, ours.processor, f"`{ours.sha256[:16]}`" if ours.sha256 else "-") if ours
                        else ("-",) * 3)])  # fmt: skip
    small = [
        [path.stem, f"[file](../{path.relative_to(ROOT)})", iterations, f"`{checksum(path)[:16]}`"]
        for study, iterations in STUDIES.items()
        for path in sorted((RESULTS / study / "checkpoints").glob("*.pth"))
    ]
    machines = sorted({record.machine for record in records.values()})
    return f"""# Model zoo

Written by `python -m tools.model_zoo_page`; runs are added by their folders, `python -m tools.model_zoo_page OUTPUT`.
"paper" is what Linsley et al. (2020) report and "released" what their released weights reach here
(`tools/convert_authors_weights.py`, then `--eval-only`); "-" was not run here. Parameters are the trainable ones.

## COCO panoptic, val2017

PQ in percent; memory in training in MB a GPU. Each row as
{command("panoptic_R50_crbp", 8)}.

{markdown_table(["config", "parameters", "memory, ours", "memory, paper", "PQ, paper", "PQ, released", "ours"], coco)}

## Pathfinder, 14 dashes

F1. Each row: `tools/generate_pathfinder.py --spec PF14`, then as
{command("pathfinder/PF14_hgru_crbp", 1)}.

{markdown_table(["config", "parameters", "F1, paper", "F1, released", "ours"], contours)}

## Runs for a laptop

The weights are made by the command; their SHA-256 (first 16 digits) is that of the run recorded here, "-" where the
figures alone were kept. The processor time is that of the whole command, user and system of all cores together as
`/usr/bin/time` gives it: two cores that do nothing else take about half of it. `quick/panoptic_R50_crbp_overfit` trains
and tests on the same images: those of `DETECTRON2_DATASETS`, in the record two of COCO val2017 (142238, 439180); it is
a check of the whole path, no result.

{markdown_table(["config", "parameters", "command", "ours", "processor time", "weights"], quick)}

Recorded on: {(";" + chr(10)).join(machines) or "-"}.

## Pathfinder, 6 dashes, with weights in this repository

Figures of each are in [RESULTS](RESULTS.md); SHA-256 of the files (first 16 digits):

{markdown_table(["run", "weights", "iterations", "SHA-256"], small)}
"""


def study_records() -> dict[str, Record]:
    """Records of the toy runs that the study keeps the figures of, without their weights."""
    found = {}
    for name, folder in (("panoptic_R18_crbp_toy", TOY), ("panoptic_R18_baseline_toy", TOY_BASELINE)):
        if kept := read_results(RESULTS / folder):
            figures, place = kept
            found[name] = Record(f"PQ {figures['PQ']:.1f}, things {figures['PQ things']:.1f}", "-", "", place)
    return found


def read_records() -> dict[str, Record]:
    """Config's name -> what is kept of its run."""
    if not RECORDS.is_file():
        return {}
    return {name: Record(**content) for name, content in json.loads(RECORDS.read_text()).items()}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, metavar="OUTPUT_DIR", help="finished runs to record")
    parser.add_argument(
        "--processor-seconds", type=float, metavar="S", help="that the one run took, user and system by /usr/bin/time"
    )
    args = parser.parse_args(arguments)
    if args.processor_seconds and len(args.runs) != 1:
        parser.error("--processor-seconds goes with one run")
    processor = f"{args.processor_seconds / 60:.1f} min" if args.processor_seconds else "-"
    records = read_records()
    try:
        for folder in args.runs:
            name, record = record_of(folder)
            records[name] = replace(record, processor=processor)
    except ValueError as error:
        sys.exit(f"model_zoo_page: {error}")
    contents = {name: asdict(record) for name, record in sorted(records.items())}
    write_text(RECORDS, json.dumps(contents, indent=1) + "\n")
    write_text(PAGE, page(records))


if __name__ == "__main__":
    main()
