"""Pages of measurements."""

import re

from tools.page import machine, processor, wrapped, write_section


def test_sections_are_added_and_replaced_in_their_place(tmp_path):
    page = tmp_path / "PAGE.md"
    for title, text in (("One", "first"), ("Two", "second"), ("One", "third\n\n### below")):
        write_section(page, "Title", title, f"measure {title}", text)
    expected = [wrapped(f"`measure {title}` on {machine()}.") + f"\n\n{text}\n" for title, text in
                (("One", "third\n\n### below"), ("Two", "second"))]  # fmt: skip
    assert page.read_text() == f"# Title\n\n## One\n\n{expected[0]}\n## Two\n\n{expected[1]}"


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
