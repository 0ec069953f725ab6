"""Records of finished runs, and the page of them."""

import hashlib
import json

import pytest

from tools.model_zoo_page import Record, page, record_of


def a_run(folder, **results):
    (folder / "inference/set").mkdir(parents=True)
    (folder / "inference/set/results.json").write_text(json.dumps(results))
    (folder / "config.yaml").write_text("OUTPUT_DIR: output/panoptic_R50_crbp\n")
    (folder / "model_final.pth").write_bytes(b"weights")
    (folder / "metrics.json").write_text('{"iteration": 1, "max_mem": 100.0}\n{"iteration": 2, "max_mem": 321.4}\n')


def test_a_run_is_recorded_by_its_config(tmp_path):
    a_run(tmp_path, panoptic_seg={"PQ": 41.27, "PQ_th": 40.54})
    name, record = record_of(tmp_path)
    assert name == "panoptic_R50_crbp" and record.figure == "PQ 41.3, things 40.5" and record.memory == "321"
    assert record.sha256 == hashlib.sha256(b"weights").hexdigest()


def test_an_unfinished_run_is_named(tmp_path):
    with pytest.raises(ValueError, match=str(tmp_path)):
        record_of(tmp_path)


@pytest.mark.slow
def test_ours_and_the_papers_numbers_are_apart():
    text = page({"panoptic_R50_crbp": Record("PQ 12.3", "321", "ab" * 32, "a machine")})
    (row,) = [line for line in text.splitlines() if line.startswith("| [panoptic_R50_crbp](")]
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[1:] == ["44,968,038", "12000", "321", "41.63", "PQ 12.3"]
    assert text.count("none was run here") == 1
