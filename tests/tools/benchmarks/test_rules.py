"""The table of rules: its values, and the page that shows it."""

import pytest

from crbp_d2.recurrence import RULES
from tools.benchmarks.rules import PAGE, compare_rules, rules_table
from tools.page import generated


@pytest.fixture(scope="module")
def rows():
    return {row.rule: row for row in compare_rules()}


def test_every_rule_is_there_with_its_cost(rows):
    assert set(rows) == set(RULES)
    for rule, kept in {"bptt": (6, 20, 80), "tbptt": (3, 3, 3), "rbp": (16, 16, 16)}.items():
        assert rows[rule].evaluations == (6, 20, 80) and rows[rule].products == kept
    for rule in ("tbptt", "rbp", "crbp", "deq"):
        assert len(set(rows[rule].held)) == 1, rule
    per_step = {(b - a) // n for a, b, n in zip(rows["bptt"].held, rows["bptt"].held[1:], (14, 60), strict=False)}
    assert len(per_step) == 1


def test_errors_are_those_of_the_theory(rows):
    """bptt misses the powers of J beyond its steps, the series those beyond its terms, deq nothing."""
    assert rows["bptt"].error[2] < 0.9**80 * 10
    assert rows["rbp"].error[2] == pytest.approx(rows["rbp"].error[1], rel=0.3)
    assert 0.9**16 / 20 < rows["rbp"].error[2] < 0.9**16
    assert rows["deq"].error[2] < 1e-8
    assert rows["crbp"].error == rows["rbp"].error


def test_the_table_of_the_page_is_current(rows):
    def lines(table):
        # How many evaluations Anderson takes to 1e-10 depends on the rounding of a machine.
        return [line for line in table.splitlines() if not line.startswith(("| deq |", "| phantom |"))]

    shown = generated(PAGE.read_text(), "costs")
    assert lines(shown) == lines(rules_table([rows[rule] for rule in RULES]))
    assert len(shown.splitlines()) == len(RULES) + 2
