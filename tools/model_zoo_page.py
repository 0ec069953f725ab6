"""Write docs/MODEL_ZOO.md from the paper's numbers, the records kept here and the folders of new runs.

python -m tools.model_zoo_page
python -m tools.model_zoo_page output/panoptic_R18_crbp_toy output/panoptic_R18_baseline_toy
python -m tools.model_zoo_page output/panoptic_R50_crbp_overfit --processor-seconds 900
"""

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import yaml
from detectron2.config import get_cfg
from detectron2.modeling import build_model

from crbp_d2 import add_crbp_config
from crbp_d2.utils.files import write_text
from tools.page import machine, markdown_table, wrapped
from tools.pathfinder_study.panoptic_results import TOY, TOY_BASELINE, read_results
from tools.pathfinder_study.paper import PANOPTIC, PATHFINDER_F1

ROOT = Path(__file__).resolve().parents[1]
RECORDS = Path(__file__).with_name("model_zoo_records.json")
PAGE = ROOT / "docs/MODEL_ZOO.md"
RESULTS = ROOT / "tools/pathfinder_study/results"
CHECKPOINTS = RESULTS / "pathfinder_small/checkpoints"
METRICS = (("panoptic_seg", "PQ"), ("pathfinder", "F1"), ("segm", "AP"), ("sem_seg", "mIoU"))
QUICK = ("quick/panoptic_R18_crbp_toy", "quick/panoptic_R18_baseline_toy", "quick/panoptic_R18_recurrent_toy",
         "quick/panoptic_R18_contracting_toy", "quick/panoptic_R50_crbp_overfit")  # fmt: skip


# Configs of the page's last table: pattern of names, content, training steps.
OTHERS = (
    ("`panoptic_R50_progressive.yaml`", "last 4 steps recorded, after 0 to 32 free ones", "20"),
    ("`panoptic_R50_crbp.py`", "`panoptic_R50_crbp.yaml` as a LazyConfig", "20"),
    ("`pathfinder/{PF14,PF6s}_hgru_{bptt,tbptt,bptt_every_step,cbptt}.yaml`", "hGRU, unrolled rules", "6 / 6"),
    ("`pathfinder/{PF14,PF6s}_hgru_{rbp,crbp,deq,phantom}.yaml`", "hGRU, rules of the fixed point", "20 / 12"),
    (
        "`pathfinder/{PF14,PF6s}_hgru_{crbp_random,progressive,progressive_far,progressive_mixed}.yaml`",
        "hGRU, a random number of steps in training",
        "20 / 12 on average or in inference",
    ),
    ("`pathfinder/{PF14,PF6s}_hgru_crbp_contracting.yaml`", "hGRU, contraction penalty, Anderson", "10 / 6"),
    ("`pathfinder/{PF14,PF6s}_hgru_crbp_released.yaml`", "hGRU in the form of the authors' weights", "20 / 12"),
    ("`pathfinder/{PF14,PF6s}_hgru_crbp_k*.yaml`", "hGRU, other kernel sizes", "20 / 12"),
    (
        "`pathfinder/{PF14,PF6s}_{convlstm,convgru}_{bptt,crbp}.yaml`",
        "ConvLSTM, ConvGRU",
        "6, 60 and 20 / 6, 24 and 12",
    ),
    ("`pathfinder/{PF14,PF6s}_convlstm_progressive.yaml`", "ConvLSTM, a random number of steps in training", "20 / 12"),
    ("`pathfinder/{PF14,PF6s}_{gala_crbp,ff6}.yaml`", "the mask head's cell; feedforward, six layers", "20 / 12"),
    ("`pathfinder/{PF20,PF25}_hgru_crbp.yaml`", "longer contours", "30, 80"),
    (
        "`quick/panoptic_R18_{baseline,bptt,crbp,contracting,progressive}_{toy,hard}.yaml`",
        "toy scenes, easy and hard: feedforward head, recurrent heads",
        "-, 3, 10, 10, 17",
    ),
    ("`quick/panoptic_R18_recurrent_toy.yaml`", "recurrent mask head and semantic head", "10"),
    ("`quick/panoptic_R50_crbp_overfit.yaml`", "COCO val trained on itself, for a few images", "20"),
    ("`quick/pathfinder_hgru_crbp_instant_test.yaml`", "seconds", "4"),
)


@dataclass(frozen=True)
class Record:
    """A finished run.

    figure: main metrics, for instance "PQ 41.3, things 40.5".
    memory: maximum in training in MB; "-" without a GPU.
    sha256: checksum of the weights; "" if they were not kept.
    processor: processor time of the command, "-" if it was not measured.
    """

    figure: str
    memory: str
    sha256: str
    machine: str
    processor: str = "-"


def record_of(folder: Path) -> tuple[str, Record]:
    """Name of the config (the last part of its default OUTPUT_DIR) and the record of a finished run.

    Raises:
        ValueError: results or weights are missing in the folder.
    """
    results = sorted(folder.glob("inference/*/results.json"))
    weights = next((folder / name for name in ("model_best.pth", "model_final.pth") if (folder / name).is_file()), None)
    if not results or weights is None or not (folder / "config.yaml").is_file():
        raise ValueError(
            f"{folder} is not a finished run: config.yaml, inference/*/results.json or weights are missing"
        )
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


def link(config: str) -> str:
    """A link to a config from the page."""
    return f"[{config.removeprefix('pathfinder/')}](../configs/{config}.yaml)"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown without the columns that hold "-" only."""
    kept = [k for k in range(len(headers)) if any(row[k] != "-" for row in rows)]
    return markdown_table([headers[k] for k in kept], [[row[k] for k in kept] for row in rows])


def not_run(rows: Sequence[Sequence[str]]) -> str:
    """A note for a table without a result of ours, its last column."""
    return "" if any(row[-1] != "-" for row in rows) else "; none was run here"


def page(records: dict[str, Record]) -> str:
    """The page's text."""
    missing = Record("-", "-", "", "-")
    coco: list[list[str]] = []
    for name, (pq, _, memory) in PANOPTIC.items():
        ours = records.get(name, missing)
        coco.append([link(name), f"{parameters(name):,}", str(memory or "-"), ours.memory, f"{pq:.2f}", ours.figure])
    contours: list[list[str]] = []
    for run, (f1, *_) in PATHFINDER_F1.items():
        name = f"pathfinder/PF14_{run}"
        contours.append([link(name), f"{parameters(name):,}", f"{f1:.3f}", records.get(f"PF14_{run}", missing).figure])
    records = study_records() | records
    quick, machines = [], set()
    for name in QUICK:
        if ours := records.get(Path(name).name):
            place, _, date = ours.machine.rpartition("; ")
            machines.add(place)
            quick.append([link(name), f"{parameters(name):,}", ours.figure, ours.processor, date])
    seeds = Counter(path.stem.rpartition("_s")[0] for path in sorted(CHECKPOINTS.glob("*.pth")))
    runs = ", ".join(f"`{run}` ({count} seeds)" if count > 1 else f"`{run}`" for run, count in seeds.items())
    weights = wrapped(
        f"The weights of these runs are in [checkpoints](../{CHECKPOINTS.relative_to(ROOT)}), each with the config "
        f"that loads it: {runs}. Their scores are in [RESULTS](RESULTS.md)."
    )
    return f"""# Model zoo

Written by `python -m tools.model_zoo_page`; `python -m tools.model_zoo_page OUTPUT_DIR` records a finished run.
"paper": Linsley et al. (2020); their released weights load by
`tools/convert_authors_weights.py` ([GETTING_STARTED](GETTING_STARTED.md#the-authors-checkpoints)).

## COCO panoptic, val2017

PQ in percent, training memory in MB a GPU{not_run(coco)}. Train each as
`tools/train_net.py --config-file configs/panoptic_R50_crbp.yaml --num-gpus 8`.

{table(["config", "trainable parameters", "memory, paper", "memory, ours", "PQ, paper", "ours"], coco)}

## Pathfinder, 14 dashes

F1{not_run(contours)}. `tools/generate_pathfinder.py --spec PF14`, then train each as
`tools/train_net.py --config-file configs/pathfinder/PF14_hgru_crbp.yaml --num-gpus 1`.

{table(["config", "trainable parameters", "F1, paper", "ours"], contours)}

## Toy scenes, on a laptop

One run each. The overfit config trains and tests on the same two COCO images: a check of the code, not a result.
Processor time: user and system time of the command, all cores.
Machine: {"; ".join(sorted(machines))}.

{table(["config", "trainable parameters", "ours", "processor time", "date"], quick)}

## Pathfinder, 6 dashes: weights in this repository

{weights}

## Further configs

Steps in training, where two numbers are separated by a slash PF14 / PF6s. All names: `crbp-list-models`.

{markdown_table(["config", "content", "steps"], OTHERS)}
"""


def study_records() -> dict[str, Record]:
    """Records of the study's toy runs, whose weights were not kept."""
    found = {}
    for name, folder in (("panoptic_R18_crbp_toy", TOY), ("panoptic_R18_baseline_toy", TOY_BASELINE)):
        if kept := read_results(RESULTS / folder):
            figures, place = kept
            found[name] = Record(f"PQ {figures['PQ']:.1f}, things {figures['PQ things']:.1f}", "-", "", place)
    return found


def read_records() -> dict[str, Record]:
    """The record of each config's run, by the config's name."""
    if not RECORDS.is_file():
        return {}
    return {name: Record(**content) for name, content in json.loads(RECORDS.read_text()).items()}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, metavar="OUTPUT_DIR", help="finished runs to record")
    parser.add_argument(
        "--processor-seconds", type=float, metavar="S", help="processor time of the one run by /usr/bin/time"
    )
    args = parser.parse_args(arguments)
    if args.processor_seconds and len(args.runs) != 1:
        parser.error("--processor-seconds needs exactly one run")
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
