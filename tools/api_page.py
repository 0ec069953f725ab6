"""Write docs/API.md: signature and first docstring sentence of every public name.

python -m tools.api_page
"""

import inspect
import re
import textwrap
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any

from crbp_d2.utils.files import write_text

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/API.md"
# Module -> its public names; a dotted name is a method.
NAMES = {
    "crbp_d2": (
        "add_crbp_config", "Trainer", "register_builtin", "register_panoptic", "register_pathfinder",
        "register_toy_panoptic",
    ),
    "crbp_d2.recurrence": (
        "learning_rule", "Recurrence", "Recurrence.forward", "RecurrenceOutput", "RecurrenceOutput.loss", "SolveStats",
        "FixedSteps", "RandomSteps", "Anderson", "Broyden", "EarlyExit", "NeumannSeries", "Unrolled", "Truncated",
        "Implicit", "Phantom", "LipschitzPenalty", "ContractionPenalty", "Mixed", "spectral_radius",
    ),
    "crbp_d2.cells": ("HGRUCell", "GalaHGRUCell", "ConvLSTMCell", "ConvGRUCell"),
    "crbp_d2.modeling": (
        "RecurrentMaskHead", "RecurrentMaskHead.run", "RecurrentSemSegHead", "ContourSegHead", "ContourStem",
        "RecurrentPanopticFPN",
    ),
    "crbp_d2.data": (
        "PathfinderSpec", "generate_pathfinder", "PathfinderDatasetMapper", "check_panoptic_dataset",
        "check_instance_dataset",
    ),
    "crbp_d2.evaluation": ("PathfinderEvaluator", "record_states"),
    "crbp_d2.layers.convolution": ("HorizontalConv2d", "set_convolution"),
    "crbp_d2.model_zoo": ("get_config", "get_config_file"),
    "crbp_d2.engine.run": ("main",),
}  # fmt: skip
HEAD = """# API

The public names with their arguments and defaults; shapes, units and errors are in the docstrings of the linked files.
Written by `python -m tools.api_page`. `learning_rule` and its output are explained in [PYTORCH](PYTORCH.md), the
protocols for parts of your own in [EXTENDING](EXTENDING.md), config keys in
[config.py](../crbp_d2/config.py)."""


def api_page() -> str:
    """The whole page."""
    sections = [HEAD]
    for module, names in NAMES.items():
        sections += [f"## {module}", "\n".join(entry(import_module(module), name) for name in names)]
    return "\n\n".join(sections) + "\n"


def entry(module: Any, name: str) -> str:
    """One item of a list: signature, first sentence, and a link to the source.

    Args:
        name: attribute of `module`, or Class.method.
    """
    found = attrgetter(name)(module)
    path = Path(inspect.getsourcefile(inspect.unwrap(found))).relative_to(ROOT).as_posix()
    text = f"- `{name}{_signature(found)}`: {_sentence(found)} [{Path(path).name}](../{path})"
    # Spaces within code do not break.
    code = re.sub(r"`[^`]*`", lambda code: code[0].replace(" ", "\0") if len(code[0]) < 100 else code[0], text)
    lines = textwrap.wrap(code, 120, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace("\0", " ")


def _signature(found: Any) -> str:
    """Arguments with defaults, without types and `self`."""
    shown = []
    for parameter in inspect.signature(found).parameters.values():
        default = parameter.default
        if default is not parameter.empty and not isinstance(default, int | float | str | tuple | None):
            default = ...
        if parameter.name != "self":
            shown.append(parameter.replace(annotation=parameter.empty, default=default))
    return str(inspect.Signature(shown)).replace("Ellipsis", "...")


def _sentence(found: Any) -> str:
    """The first sentence of the docstring without sources in brackets."""
    first = " ".join(inspect.getdoc(found).split("\n\n")[0].split())
    first = re.sub(r" \([^()]*\b(?:19|20)\d\d\b[^()]*\)", "", first)
    return re.split(r"(?<=[^\s.][.:])\s(?=[A-Z])", first)[0].rstrip(".:") + "."


if __name__ == "__main__":
    write_text(PAGE, api_page())
