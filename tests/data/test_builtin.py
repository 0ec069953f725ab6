"""Built-in data sets are registered when asked for, and not before."""

import json
import os
import subprocess
import sys

CATALOGS = """
import importlib, json, os, pkgutil, sys
from detectron2.data import DatasetCatalog, MetadataCatalog

def state():
    metadata = {name: sorted(MetadataCatalog.get(name).as_dict()) for name in MetadataCatalog.list()}
    return {name: id(DatasetCatalog[name]) for name in DatasetCatalog.list()}, metadata

before = state()
import crbp_d2
for module in pkgutil.walk_packages(crbp_d2.__path__, "crbp_d2."):
    importlib.import_module(module.name)
unchanged = state() == before
heavy = sorted({"matplotlib", "scipy", "onnx", "tensorboard"} & set(sys.modules))
os.environ["DETECTRON2_DATASETS"] = sys.argv[1]
from crbp_d2 import register_builtin
register_builtin()
first = state()
register_builtin()
added = sorted(set(first[0]) - set(before[0]))
toy = MetadataCatalog.get("toy_panoptic_val").image_root
pathfinder = str(MetadataCatalog.get("pathfinder_PF14_val").source.path)
print(json.dumps([unchanged, state() == first, added, toy, pathfinder, sorted(set(before[0]) - set(first[0])), heavy]))
"""


def test_importing_registers_nothing_and_registering_repeats(tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "DETECTRON2_DATASETS"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CATALOGS, str(tmp_path)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    unchanged, idempotent, added, toy, pathfinder, lost, heavy = json.loads(done.stdout.splitlines()[-1])
    assert unchanged and idempotent and not lost
    # Every start would wait for what few runs need.
    assert not heavy
    assert {"toy_panoptic_train", "toy_panoptic_val", "pathfinder_PF14_train", "pathfinder_PF6s_stream"} <= set(added)
    assert all(name.startswith(("toy_panoptic_", "pathfinder_")) for name in added)
    # Where DETECTRON2_DATASETS points at the time.
    assert toy.startswith(str(tmp_path)) and pathfinder.startswith(str(tmp_path))
