"""The package's rooms stand in the order of the workflow, and files, classes and functions stay short."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from support.paths import ROOT

# A room imports only rooms that stand before it. The first two lines are the ground, which knows nothing of the domain.
ORDER = [
    "errors", "files", "units", "csv_files", "literals", "text", "validation", "imports", "progress", "recipe",
    "plotting", "compute", "jobs",
    "spaces", "operations", "runtimes", "networks", "tables", "sharing", "data", "cost", "scores", "training",
    "calibration", "profiling", "budgets", "latent", "search", "export", "finalists", "runs", "benchmark", "report",
    "api", "cli",
]  # fmt: skip
MOST_LINES, MOST_METHODS, MOST_LINES_OF_A_FUNCTION = 400, 19, 60
FACE = ("__init__", "__main__")  # the package itself, which holds the version and imports lazily, and `python -m hwnas`


@cache
def modules() -> dict[str, Path]:
    """Return the files of all modules by their names, such as ``hwnas.cost.model``; a package goes by its folder."""
    files = {}
    for file in sorted((ROOT / "hwnas").rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return files


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text(encoding="utf-8"))


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def imports_of(module: str) -> set[str]:
    """Return the modules of hwnas that a module imports: anywhere in the file, for type checkers too."""
    found = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "hwnas"}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are written in full"
            if node.module and node.module.split(".")[0] == "hwnas":
                names = (f"{node.module}.{alias.name}" for alias in node.names)
                found |= {name if name in modules() else node.module for name in names}
    return found - {module}


def test_every_room_has_a_place_in_the_order() -> None:
    rooms = {room(module) for module in modules()} - set(FACE)
    assert rooms - set(ORDER) == set()


@pytest.mark.slow
def test_no_import_runs_upwards() -> None:
    upwards = [
        f"{module} imports {imported}"
        for module in modules()
        for imported in sorted(imports_of(module))
        if not {room(module), room(imported)} & set(FACE) and ORDER.index(room(imported)) > ORDER.index(room(module))
    ]
    assert upwards == []


def test_no_imports_form_a_circle() -> None:
    """A package that imports its own modules, such as hwnas.search.methods, must not be imported by them."""
    graph = {module: imports_of(module) - {"hwnas"} for module in modules() if room(module) not in FACE}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


def definitions(*kinds: type[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    for module in modules():
        for node in ast.walk(tree(module)):
            if isinstance(node, kinds):
                yield f"{module}.{node.name}", node  # type: ignore[attr-defined]


def test_files_classes_and_functions_are_short() -> None:
    lengths = {module: len(file.read_text(encoding="utf-8").splitlines()) for module, file in modules().items()}
    long = [f"{module} has {lines} lines" for module, lines in lengths.items() if lines > MOST_LINES]
    for name, node in definitions(ast.ClassDef):
        methods = sum(isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef) for part in node.body)  # type: ignore[attr-defined]
        if methods > MOST_METHODS:
            long.append(f"class {name} has {methods} methods")
    for name, node in definitions(ast.FunctionDef, ast.AsyncFunctionDef):
        lines = (node.end_lineno or 0) - node.lineno + 1
        if lines > MOST_LINES_OF_A_FUNCTION:
            long.append(f"function {name} has {lines} lines")
    assert long == []


def test_import_hwnas_imports_no_torch() -> None:
    """tests/cli/test_help.py checks the same of the command line."""
    check = "import hwnas, sys; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_packages_that_import_slowly_are_imported_in_functions() -> None:
    """Every command that imports the module would wait for them."""
    slow = ("scipy.stats", "sklearn", "matplotlib", "torchvision", "onnxruntime", "fvcore", "ray", "pyarrow")
    eager = []
    for module in modules():
        for node in tree(module).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names += [f"{node.module or ''}.{alias.name}" for alias in node.names]
            eager += [
                f"{module} imports {name}" for name in names if f"{name}.".startswith(tuple(f"{s}." for s in slow))
            ]
    assert eager == []


@pytest.mark.slow
def test_no_test_file_imports_another() -> None:
    """Helpers that several test files need are in tests/support."""
    names = {file.stem for file in (ROOT / "tests").rglob("test_*.py")} | {"conftest"}
    for file in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            imported = []
            if isinstance(node, ast.Import):
                imported = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                imported = [node.module or ""]
            assert not {part for name in imported for part in name.split(".")} & names, f"{file}:{node.lineno}"  # type: ignore[attr-defined]
