"""More threads and processes."""

from tools.benchmarks.processes import Throughput, measure_layouts, processes_table


def test_processes_share_a_batch():
    layouts = measure_layouts(layouts=((1, 1), (2, 1)), batch=2, side=6, steps=1)
    assert list(layouts) == [(1, 1), (2, 1)]
    assert min(min(found.rate, found.processor) for found in layouts.values()) > 0


def test_ratios_are_to_the_first_layout():
    layouts = {(1, 1): Throughput(2.0, 0.5), (4, 1): Throughput(3.5, 0.75)}
    assert processes_table(layouts).rows[1] == [4, 1, "3.50", "1.75", "0.750", "1.50"]
