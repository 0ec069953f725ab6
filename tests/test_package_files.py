"""Form of the source files."""

import ast

import pytest
from helpers.paths import ROOT

PACKAGE = sorted((ROOT / "crbp_d2").rglob("*.py"))
SOURCES = [*PACKAGE, *sorted((ROOT / "tools").rglob("*.py")), *sorted((ROOT / "configs").rglob("*.py"))]


def relative(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_file_is_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


@pytest.mark.parametrize("path", PACKAGE, ids=relative)
def test_docstring_without_cuda_or_print(path):
    """Devices are those of the inputs; only command-line programs print."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree) or not tree.body
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not [c for c in calls if isinstance(c, ast.Attribute) and c.attr == "cuda"]
    if path.parent.name != "cli":
        assert not [c for c in calls if isinstance(c, ast.Name) and c.id == "print"]
