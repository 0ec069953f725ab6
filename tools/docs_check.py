"""Run the commands of the pages in a temporary folder, with settings that take seconds.

python -m tools.docs_check

A test parses every command of the pages by `check_command`; those in SMALL are run here. The commands of DATASETS are
run by tests/test_new_user.py, the Python blocks by tests/test_docs.py.
"""

import argparse
import importlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "CONTRIBUTING.md", "docs/*.md")
# Options that make a command of the pages take seconds instead of hours.
TINY = "SOLVER.MAX_ITER 2 SOLVER.IMS_PER_BATCH 2 DATALOADER.NUM_WORKERS 0 DATASETS.TEST () DATASETS.TRAIN"
SMALL = {
    "tools/generate_pathfinder.py --spec PF14 --train 180000 --val 20000 --seed 0 --workers 8":
        "--train 3 --val 2 --workers 1",
    "tools/train_net.py --config-file configs/pathfinder/PF6s_hgru_crbp.yaml --resume":
        f"{TINY} ('pathfinder_PF6s_stream',)",
    "tools/train_net.py --config-file configs/pathfinder/PF6s_hgru_crbp.yaml --num-gpus 0 --num-processes 2":
        f"OUTPUT_DIR output/two {TINY} ('pathfinder_PF6s_stream',)",
    "tools/predict.py --run output/PF6s_hgru_crbp contour.png --steps 1 6 12 --settling --output out": "",
}  # fmt: skip


def commands(page: Path) -> list[str]:
    """The shell commands of a page's code blocks, one a line, without comments and with continued lines joined."""
    found = []
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.S | re.M):
        if language not in ("", "bash", "sh"):
            continue
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            line = re.sub(r"(^|\s)#.*", "", line).strip()
            if re.match(r"(make|pip|python|torchrun|srun|\.|(\$CRBP/)?tools/\w+\.py|crbp-[\w-]+)\s", line):
                found.append(line)
    return found


def check_command(line: str) -> None:
    """Parse a command as the program that it calls would.

    Raises:
        ValueError: names a command with an unknown program, target, flag or key.
    """
    words = shlex.split(line.replace("$CONFIG", str(ROOT / "configs/quick/panoptic_R18_crbp_toy.yaml")))
    words = [word for word in words if word != "$DATA"]
    if words[0] in ("srun", "torchrun"):
        words = words[next(k for k, word in enumerate(words) if word.startswith("tools/")) :]
    program, rest = words[0].removeprefix("$CRBP/"), words[1:]
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.M)
        if rest[0] not in targets:
            raise ValueError(f"{line}: the Makefile has no target {rest[0]}")
    elif program == "python":
        if rest[0] == "-m" and importlib.util.find_spec(rest[1]) is None:
            raise ValueError(f"{line}: no module {rest[1]}")
    elif program.startswith("tools/"):
        _check_tool(line, program, rest)
    elif program not in (".", "pip") and not program.startswith("crbp-"):
        raise ValueError(f"{line}: unknown program")


def _check_tool(line: str, program: str, words: list[str]) -> None:
    from crbp_d2.engine.setup import argument_parser, checked_config

    if not os.access(ROOT / program, os.X_OK):
        raise ValueError(f"{line}: {program} cannot be executed")
    try:
        if program == "tools/train_net.py":
            args = argument_parser().parse_args(words)
            # The machine at hand may have no GPU.
            args.num_gpus, args.config_file = 0, str(ROOT / args.config_file)
            checked_config(args)
        else:
            importlib.import_module(f"crbp_d2.cli.{Path(program).stem}").argument_parser().parse_args(words)
    except (SystemExit, KeyError, ValueError) as error:
        raise ValueError(f"{line}: {error}") from error


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 0 if all commands run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(arguments)
    on_pages = [command for pattern in PAGES for page in sorted(ROOT.glob(pattern)) for command in commands(page)]
    if missing := [command for command in SMALL if command not in on_pages]:
        sys.exit(f"docs_check: no page has the command {missing[0]}")
    with tempfile.TemporaryDirectory() as folder:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        for name in ("tools", "configs"):
            Path(folder, name).symlink_to(ROOT / name)
        _draw_inputs(Path(folder))
        for command, options in SMALL.items():
            words = [*shlex.split(command), *options.split()]
            done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
            print(f"{'ok' if done.returncode == 0 else 'FAILED'}: {' '.join(words)}", flush=True)
            if done.returncode:
                print((done.stdout + done.stderr)[-3000:])
                return 1
    return 0


def _draw_inputs(folder: Path) -> None:
    """contour.png, a stimulus."""
    import cv2

    from crbp_d2.data import generate_pathfinder

    images, _ = generate_pathfinder("PF6s", count=1, seed=5)
    cv2.imwrite(str(folder / "contour.png"), images[0])


if __name__ == "__main__":
    sys.exit(main())
