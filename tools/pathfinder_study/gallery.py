"""gallery.html: figures, ledger, verdicts and a prediction to step through, in one file that loads nothing."""

import base64
import json
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

from tabulate import tabulate

from .claims import Claim
from .comparisons import Outcome
from .figure_style import name_of
from .figures import FIGURES
from .harder_scenes import HARDER, harder_table, load_harder_runs
from .ledger import LONGER_NOTE, own_panoptic_rows, panoptic_rows, pathfinder_rows
from .panoptic_results import TOY, kept_pictures
from .records import Study
from .unrolling import Unrolling
from .verdict_section import values_cell, verdict_cell

PAGE = Template((Path(__file__).parent / "gallery_page.html").read_text())
PANOPTIC = {
    "panoptic_toy": ("Panoptic toy model", "Panoptic quality of the toy model after each number of steps, in percent."),
    HARDER: (
        "Panoptic models on harder scenes",
        "Panoptic quality after each number of steps by learning rule: means over seeds with their range, in percent.",
    ),
}


def gallery_page(
    study: Study,
    earlier: Study,
    outcomes: Sequence[tuple[Claim, Outcome]],
    written: Sequence[str],
    folder: Path,
    unrolling: Unrolling | None,
    root: Path,
) -> str:
    """The whole page.

    Args:
        written: stems of the figures in `folder`/figures.
        unrolling: None leaves a sentence in its place.
    """
    texts = {stem: (title, caption) for stem, (_, title, caption) in FIGURES.items()} | PANOPTIC
    figures = [_figure(stem, *texts[stem], folder / "figures" / f"{stem}.png") for stem in written]
    ledger = [
        [row.quantity, row.paper, row.ours, _link(row.figure, written), f"`{row.command}`"]
        for row in (*pathfinder_rows(study, earlier), *panoptic_rows())
    ]
    verdicts = [
        [c.sentence, c.paper, c.measure, values_cell(o), verdict_cell(o), _link(c.figure, written)] for c, o in outcomes
    ]
    reasons = [f"<p><b>{escape(c.sentence)}: fails.</b> {escape(o.why)}</p>" for c, o in outcomes if o.holds is False]
    return PAGE.substitute(
        unrolling=_unrolling(unrolling),
        figures="\n".join(figures) or "<p>No run has been recorded.</p>",
        ledger=_table(["", "paper", "ours (small scale)", "figure", "command"], ledger),
        note=_inline(LONGER_NOTE),
        verdicts=_table(["claim", "paper", "measure", "ours", "verdict", "figure"], verdicts),
        reasons="\n".join(reasons),
        panoptic=_table(["what", "ours", "command", "machine"], own_panoptic_rows(root)),
        harder=_table(*harder_table(load_harder_runs(root), root)),
        pictures=_pictures("toy scene", TOY, root),
        harder_pictures=_pictures("harder scene", HARDER, root),
    )


def _figure(stem: str, title: str, caption: str, path: Path) -> str:
    return (
        f'<figure id="{stem}"><h3>{title}</h3>{_picture(path.read_bytes(), title)}'
        f'<figcaption>{escape(caption)} <a href="figures/{stem}.csv">Numbers</a></figcaption></figure>'
    )


def _pictures(what: str, name: str, root: Path) -> str:
    return "\n".join(_picture(path.read_bytes(), f"{what} {path.stem}") for path in kept_pictures(name, root))


def _picture(image: bytes, alt: str, attributes: str = "") -> str:
    return f'<img src="{_data(image)}" alt="{escape(alt)}"{attributes}>'


def _data(image: bytes) -> str:
    kind = "png" if image.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64," + base64.b64encode(image).decode()


def _link(stem: str, written: Sequence[str]) -> str:
    return f"[figure](#{stem})" if stem in written else "-"


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """HTML of cells in Markdown, in a region that can be scrolled by keyboard."""
    cells = [[_inline(cell) for cell in row] for row in rows]
    table = tabulate(cells, headers=[escape(h) for h in headers], tablefmt="unsafehtml", disable_numparse=True)
    return f'<div class="table" tabindex="0" role="region" aria-label="table">{table}</div>'


def _inline(text: str) -> str:
    """Markdown's `code`, **strong** and [links](#within the page) as HTML; everything else is shown as it is."""
    html = escape(text)
    html = re.sub(r"`([^`]+)`", r"<code>\1</code>", html)
    html = re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", html)
    return re.sub(r"\[([^]]+)\]\((#[\w-]+)\)", r'<a href="\2">\1</a>', html)


def _unrolling(unrolling: Unrolling | None) -> str:
    if unrolling is None:
        return "<p>Not drawn: no checkpoint is there.</p>"
    last = len(unrolling.runs[0].frames)
    panels = [
        f"<figure>{_picture(png, name)}<figcaption>{name}</figcaption></figure>"
        for name, png in (("stimulus", unrolling.stimulus), ("target", unrolling.target))
    ]
    content = {}
    for unrolled in unrolling.runs:
        name = name_of(unrolled.run)
        content[unrolled.run] = {
            "trained": unrolled.trained,
            "frames": [_data(frame) for frame in unrolled.frames],
            "f1": [round(value, 3) for value in unrolled.f1],
        }
        image = _picture(unrolled.frames[0], f"prediction of {name}", f' id="frame-{unrolled.run}"')
        panels.append(
            f'<figure>{image}<figcaption>{name}, trained with N = {unrolled.trained} steps'
            f'<br><span id="score-{unrolled.run}"></span></figcaption></figure>'
        )  # fmt: skip
    data = json.dumps(content).replace("<", "\\u003c")
    return (
        f"<p>The first validation stimulus of {unrolling.spec}, and the probability of the target contour after each "
        f'step.</p><div class="panels">{"".join(panels)}</div>'
        f'<p class="control"><label for="step">Step</label><input type="range" id="step" min="1" max="{last}" step="1" '
        'value="1"><output id="shown" for="step" aria-live="polite">t = 1</output>'
        '<button type="button" id="play" aria-pressed="false">Play</button></p>'
        f'<script type="application/json" id="frames">{data}</script>'
    )
