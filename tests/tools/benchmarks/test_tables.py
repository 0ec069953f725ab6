"""Tables as CSV files, and the speed of the generator in one."""

import csv

import pytest

from tools.benchmarks import tables
from tools.benchmarks.stimuli import ORIGINAL_SECONDS, measure_stimuli, stimuli_table
from tools.page import machine


def test_a_table_names_its_command_and_machine(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tables, "RESULTS", tmp_path / "results")
    tables.write_table("some", "some --fast", tables.Table(["a, b", "c"], [[1, "x, y"]]))
    first, *lines = (tmp_path / "results/some.csv").read_text().splitlines()
    assert first == f"# python -m tools.benchmarks some --fast: {machine()}"
    assert list(csv.reader(lines)) == [["a, b", "c"], ["1", "x, y"]]
    assert "| x, y" in capsys.readouterr().out


def test_committed_tables_name_their_command():
    files = sorted(tables.RESULTS.glob("*.csv"))
    assert files
    for file in files:
        first, *lines = file.read_text().splitlines()
        assert first.startswith("# python -m tools.benchmarks ") and " cores, " in first, file
        assert len({len(row) for row in csv.reader(lines)}) == 1, file


def test_stimuli_are_measured_and_extrapolated():
    (row,) = measure_stimuli({"PF6s": 3}, workers=1)
    assert row[:2] == ("PF6s", 3) and row[2] > 0 and 300 < row[3] < 5000
    # 2000 stimuli in 20 s on 2 cores: 20 ms a stimulus and core, 2000 s for 200,000.
    first, second = stimuli_table([("PF14", 2000, 20.0, 2500.0), row], workers=2).rows
    assert first == ["PF14", 2000, "20.0", "20", "2.5", f"{2000 / 3600:.2f}", "0.50"]
    assert second[3] == "-" and second[5:] == ["-", "-"] and ORIGINAL_SECONDS == 0.4
    assert float(second[2]) == pytest.approx(1000 * row[2] * 2 / 3, abs=0.06)
