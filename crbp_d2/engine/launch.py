"""Start one process or several, on GPUs or on a CPU, by detectron2's launcher or by torchrun."""

import argparse
import os
import re
from collections.abc import Callable
from typing import Any

import torch
from detectron2.engine import launch as start_processes
from detectron2.utils import comm
from torch import distributed


def processes_of(args: argparse.Namespace) -> int:
    """Processes on this machine: `num_processes` on the CPU, else `num_gpus`, at least 1."""
    return getattr(args, "num_processes", 0) or max(args.num_gpus, 1)


def world_size(args: argparse.Namespace) -> int:
    """Processes on all machines."""
    return int(os.environ["WORLD_SIZE"]) if under_torchrun() else args.num_machines * processes_of(args)


def under_torchrun() -> bool:
    """Returns whether torchrun (or a launcher that sets its variables) started this process."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"))


def check_processes(args: argparse.Namespace) -> None:
    """Check the flags against the machine.

    Raises:
        ValueError: names the flag.
    """
    processes, gpus = getattr(args, "num_processes", 0), torch.cuda.device_count()
    given = f"--num-gpus is {args.num_gpus} and --num-processes {processes}"
    machines, form = f"--num-machines is {args.num_machines}", r"auto|tcp://[^:/]+:\d+|file:///.+|env://"
    # --num-gpus 1 is the default, which runs without a GPU too.
    problems = {
        f"{given}; allowed: numbers from 0": min(args.num_gpus, processes) < 0,
        f"{given}, which are for processes on GPUs and on the CPU: give one": processes > 0 and args.num_gpus > 1,
        f"--num-gpus is {args.num_gpus}, but this machine has {gpus}; `--num-gpus 0 --num-processes {args.num_gpus}` "
        "starts as many processes on the CPU": args.num_gpus > max(gpus, 1),
        f"{machines} and --machine-rank {args.machine_rank}; allowed: at least 1, and ranks from 0 below it":
            not 0 <= args.machine_rank < args.num_machines,
        f"--dist-url is {args.dist_url!r}; allowed: auto, tcp://HOST:PORT, file:///PATH":
            not re.fullmatch(form, args.dist_url),
        f"{machines}, so --dist-url must name the first one, such as tcp://HOST:PORT":
            args.num_machines > 1 and args.dist_url == "auto" and not under_torchrun(),
        f"{given}, but torchrun starts the processes: omit both flags and give torchrun --nproc-per-node":
            under_torchrun() and max(processes, args.num_gpus) > 1,
    }  # fmt: skip
    for text, holds in problems.items():
        if holds:
            raise ValueError(text)


def launch(main: Callable[..., Any], args: argparse.Namespace, *others: Any) -> Any:
    """Run `main(args, *others)` in all processes; a single one runs here, and its result is returned.

    Under torchrun this process joins the others. With `--num-processes` no GPU is used.
    """
    if getattr(args, "num_processes", 0):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if under_torchrun():
        return _join(main, args, *others)
    if world_size(args) == 1:
        return main(args, *others)
    # detectron2 reads the number of processes as that of GPUs, and without any uses gloo.
    return start_processes(
        main,
        processes_of(args),
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(args, *others),
    )


def _join(main: Callable[..., Any], args: argparse.Namespace, *others: Any) -> Any:
    if int(os.environ["WORLD_SIZE"]) == 1:
        return main(args, *others)
    gpus = torch.cuda.is_available()
    if gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if gpus else "gloo")
    comm.create_local_process_group(int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"])))
    comm.synchronize()
    try:
        return main(args, *others)
    finally:
        distributed.destroy_process_group()
