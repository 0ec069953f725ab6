"""gallery.html: all figures and a prediction to step through, in one file that loads nothing."""

import base64
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

from .figure_style import name_of
from .figures import FIGURES
from .harder_scenes import HARDER
from .panoptic_results import TOY, kept_pictures
from .unrolling import Unrolling

PAGE = Template((Path(__file__).parent / "gallery_page.html").read_text())
# Figures that are not drawn from the study's records only.
OTHERS = {
    "trace": ("One long contour", "The probability of the target after t steps on a contour of twice the length."),
    HARDER: (
        "Panoptic models on harder scenes",
        "Panoptic quality after each number of steps by learning rule: means over seeds with their range, in percent.",
    ),
}


def gallery_page(written: Sequence[str], folder: Path, unrolling: Unrolling | None, root: Path) -> str:
    """The whole page.

    Args:
        written: stems of the figures in `folder`/figures.
        unrolling: a sentence replaces None.
    """
    texts = {stem: (title, caption) for stem, (_, title, caption) in FIGURES.items()} | OTHERS
    figures = [_figure(stem, *texts[stem], folder / "figures" / f"{stem}.png") for stem in written]
    return PAGE.substitute(
        unrolling=_unrolling(unrolling),
        figures="\n".join(figures) or "<p>No run has been recorded.</p>",
        pictures=_pictures("toy scene", TOY, root),
        harder_pictures=_pictures("harder scene", HARDER, root),
    )


def _figure(stem: str, title: str, caption: str, path: Path) -> str:
    return (
        f'<figure id="{stem}"><h3>{title}</h3>{_picture(path.read_bytes(), title)}'
        f'<figcaption>{escape(caption)} <a href="figures/{stem}.csv">Numbers</a></figcaption></figure>'
    )


def _pictures(kind: str, name: str, root: Path) -> str:
    return "\n".join(_picture(path.read_bytes(), f"{kind} {path.stem}") for path in kept_pictures(name, root))


def _picture(image: bytes, alt: str, attributes: str = "") -> str:
    return f'<img src="{_data(image)}" alt="{escape(alt)}"{attributes}>'


def _data(image: bytes) -> str:
    kind = "png" if image.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64," + base64.b64encode(image).decode()


def _unrolling(unrolling: Unrolling | None) -> str:
    if unrolling is None:
        return "<p>Not drawn: no checkpoint exists.</p>"
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
