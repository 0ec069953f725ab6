"""Imports of the package go down its list of layers only, without cycles."""

import ast
from pathlib import Path

import pytest
from helpers.paths import ROOT

# From the lowest; a layer may import itself and those before it.
LAYERS = (
    ("utils",),
    ("layers",),
    ("recurrence",),
    ("cells",),
    ("config", "config_file", "model_zoo"),
    ("modeling",),
    ("checkpoint",),
    ("data",),
    ("evaluation",),
    ("doctor",),
    ("predict",),
    ("engine",),
    ("cli",),
)
LEVELS = {name: level for level, names in enumerate(LAYERS) for name in names}
# Its functions build models, which are above it.
DEFERRED = "crbp_d2.model_zoo"
PURE_TORCH = ("recurrence", "layers", "cells")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path, deferred: bool = True) -> set[str]:
    """Full names of the modules that a file imports; of "from . import name" the name, where it is a module."""
    package = module_name(path) if path.name == "__init__.py" else module_name(path).rpartition(".")[0]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = set()
    for node in ast.walk(tree) if deferred else tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                submodule = ROOT / f"{base}.{alias.name}".replace(".", "/")
                is_module = submodule.is_dir() or submodule.with_suffix(".py").is_file()
                names.add(f"{base}.{alias.name}" if is_module else base)
    return names


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def layer_of(module: str) -> str:
    return module.split(".")[1]


def test_every_module_has_a_layer():
    found = {layer_of(module_name(path)) for path in sources("crbp_d2") if path.parent != ROOT / "crbp_d2"}
    found |= {path.stem for path in (ROOT / "crbp_d2").glob("*.py")} - {"__init__"}
    assert found == set(LEVELS)


@pytest.mark.parametrize("layer", LEVELS)
def test_imports_go_down(layer):
    root = ROOT / "crbp_d2" / layer
    paths = sources(f"crbp_d2/{layer}") if root.is_dir() else [root.with_suffix(".py")]
    upwards = [
        f"{module_name(path)} imports {name}"
        for path in paths
        for name in imported(path, deferred=module_name(path) != DEFERRED)
        if name.startswith("crbp_d2.") and LEVELS[layer_of(name)] > LEVELS[layer]
    ]
    assert paths and not upwards


@pytest.mark.parametrize("layer", PURE_TORCH)
def test_the_mathematics_needs_torch_alone(layer):
    packages = {name.split(".")[0] for path in sources(f"crbp_d2/{layer}") for name in imported(path)}
    assert not packages & {"detectron2", "fvcore", "iopath", "cv2", "pycocotools", "yacs"}


def test_the_package_imports_no_tool():
    assert not [path for path in sources("crbp_d2") for name in imported(path) if name.split(".")[0] == "tools"]


def test_the_engine_imports_neither_study_nor_benchmarks():
    names = {part for path in sources("crbp_d2") for part in path.relative_to(ROOT).parts}
    assert not names & {"analysis", "study", "pathfinder_study", "benchmarks", "benchmark.py", "benchmarks.py"}


def test_no_modules_import_each_other():
    graph = {
        module_name(path): {name for name in imported(path, deferred=False) if name.startswith("crbp_d2.")}
        for path in sources("crbp_d2")
    }
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join((*above, module))
        if module not in done:
            for name in graph.get(module, ()):
                # A package's __init__ imports its modules, which may name the package's other modules through it.
                if name != module:
                    visit(name, (*above, module))
            done.add(module)

    for module in graph:
        visit(module, ())
    assert done >= set(graph)
