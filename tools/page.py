"""Pages of measurements: a section a measurement, each with the command that wrote it and the machine it ran on."""

import os
import platform
import re
import textwrap
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import torch
from tabulate import tabulate

from crbp_d2.utils.files import write_text


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Cells are shown as they are given."""
    return tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True)


def machine() -> str:
    """Processor, cores, accelerator and versions of this machine, and the date."""
    info = Path("/proc/cpuinfo")
    cpu = processor(info.read_text() if info.exists() else "")
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{cpu}, {os.cpu_count()} cores, {accelerator}; Python {platform.python_version()}, torch {torch.__version__}; "
        f"{date.today()}"
    )


def processor(info: str) -> str:
    """The processor's name, with the family and model that virtual machines leave out of the name.

    Args:
        info: what /proc/cpuinfo holds, or nothing.
    """
    fields = dict(re.findall(r"(?m)^([\w ]+?)\s*: (.+)$", info))
    name = fields.get("model name") or platform.processor() or platform.machine()
    if {"cpu family", "model"} <= fields.keys():
        return f"{name} (family {fields['cpu family']}, model {fields['model']})"
    return name


def write_section(page: Path, page_title: str, title: str, command: str, text: str) -> None:
    """Put a section into a page of "## title" sections, in the place of the one with this title if there is one.

    Args:
        page_title: title of a page that does not exist yet.
        command: that measures the section again.
    """
    head, *sections = re.split(r"(?m)^(?=## )", page.read_text() if page.exists() else f"# {page_title}\n\n")
    new = f"## {title}\n\n" + wrapped(f"`{command}` on {machine()}.\n\n{text.strip()}") + "\n\n"
    titles = [section.split("\n", 1)[0] for section in sections]
    if f"## {title}" in titles:
        sections[titles.index(f"## {title}")] = new
    else:
        sections.append(new)
    write_text(page, "".join([head, *(section.rstrip() + "\n\n" for section in sections)]).rstrip() + "\n")


def wrapped(text: str, width: int = 120) -> str:
    """A Markdown text whose paragraphs have no line longer than `width`; tables and code are left as they are."""
    paragraphs = text.split("\n\n")
    for k, paragraph in enumerate(paragraphs):
        if max(map(len, paragraph.splitlines()), default=0) <= width or paragraph.startswith(("|", "```", "    ")):
            continue
        if re.match(r"(\d+\.|-) ", paragraph):
            items = re.split(r"\n(?=(?:\d+\.|-) )", paragraph)
            paragraphs[k] = "\n".join(_filled(item, width, indent=" " * (item.index(" ") + 1)) for item in items)
        else:
            paragraphs[k] = _filled(paragraph, width)
    return "\n\n".join(paragraphs)


def _filled(text: str, width: int, indent: str = "") -> str:
    line = " ".join(text.split())
    return textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False, subsequent_indent=indent)
