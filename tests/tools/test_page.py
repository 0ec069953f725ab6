"""Parts of pages that commands write."""

import re

import pytest

from tools.page import generated, machine, processor, with_generated, wrapped


def test_a_generated_part_is_replaced_in_its_place():
    page = "above\n<!-- rules: written by `a` -->\n\nold\n\n<!-- end of rules -->\nbelow"
    changed = with_generated(page, "rules", "| new |\n")
    assert changed == page.replace("old", "| new |") and generated(changed, "rules") == "| new |"
    with pytest.raises(ValueError, match="part between <!-- claims"):
        generated(page, "claims")


def test_paragraphs_are_wrapped_and_tables_are_not():
    row = "| " + "cell " * 40 + "|"
    text = f"short\nlines\n\n{'word ' * 50}\n\n{row}"
    short, long, table = wrapped(text).split("\n\n")
    assert (short, table) == ("short\nlines", row)
    assert long.split() == ["word"] * 50 and max(map(len, long.splitlines())) <= 120


def test_the_machine_is_named():
    assert re.search(r"\d+ cores, .*; Python 3[.\d]+, torch \d+[^;]*; \d{4}-\d\d-\d\d$", machine())


def test_processors_of_one_name_are_told_apart():
    info = "processor\t: 0\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\nflags\t\t: fpu\n"
    assert processor(info) == "AMD EPYC (family 25, model 17)"
    assert processor("model name\t: Cortex-A72\n") == "Cortex-A72"
    assert processor("")
