"""More threads and processes."""

import pytest

from tools.benchmarks.processes import Throughput, measure_layouts, processes_panel, processes_section


def test_processes_share_a_batch():
    layouts = measure_layouts(layouts=((1, 1), (2, 1)), batch=2, side=6, steps=1)
    assert list(layouts) == [(1, 1), (2, 1)]
    assert min(min(found.rate, found.processor) for found in layouts.values()) > 0


def test_section_and_panel():
    layouts = {(1, 1): Throughput(2.0, 0.5), (1, 2): Throughput(3.0, 0.6), (4, 1): Throughput(3.5, 0.75)}
    text = processes_section(layouts)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert ["4", "1", "3.50", "1.75", "0.750", "1.50"] in rows
    curves = processes_panel(layouts).curves
    assert curves == {"1 process": ((1, 2), (2.0, 3.0)), "4 processes": ((4,), (pytest.approx(3.5),))}
