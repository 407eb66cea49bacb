"""Import rules between packages, and rules for pinned dependencies."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from graphlib import TopologicalSorter
from importlib import metadata
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path

import pytest
import yaml
from tests_support import REPOSITORY

# One process reads the files once.
pytestmark = pytest.mark.xdist_group("checked")

PACKAGES = ("flows", "tasks", "task_script")
MODULES = sorted(path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py"))

# The layers of each package, lowest first. A layer imports only itself and lower layers.
LAYERS = {
    "tasks": (
        "clock",
        "files",
        "text",
        "progress",
        "redaction",
        "errors",
        "environment",
        "prefect_api",
        "model",
        "azure",
        "workload",
        "report",
        "steps",
    ),
    "flows": ("console", "cleanup", "topn", "sweep", "servers", "notices", "cli", "api"),
    "task_script": (
        "text",
        "files",
        "transcoding",
        "compressed",
        "options",
        "counts",
        "merging",
        "partials",
        "vocabulary",
        "large_files",
        "native",
        "counting",
        "corpus",
        "byte_code",
        "top_words",
        "__main__",
    ),
}

# A folder with more modules covers more than one subject.
MAX_MODULES_PER_FOLDER = 17

# Modules of `tasks` that may import Prefect. The others work without it.
MAY_IMPORT_PREFECT = (
    "tasks.steps",
    "tasks.report.artifacts",
    "tasks.report.events",
    "tasks.report.timing",
    "tasks.azure.block",
)


@cache
def imports_of(path):
    """Return the names of all modules that a file imports, at any level."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imports(path, *wanted):
    return [name for name in imports_of(path) if any(name == w or name.startswith(f"{w}.") for w in wanted)]


def test_packages_come_from_this_repository():
    for package in PACKAGES:
        assert Path(find_spec(package).origin).parent == REPOSITORY / package


def name_of(path):
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


def local_imports():
    """Return the local modules that each module of this repository imports."""
    names = {name_of(path) for path in MODULES}
    return {name_of(path): (imports_of(path) & names) - {name_of(path)} for path in MODULES}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_packages_and_sdks_stay_apart(path):
    module = name_of(path)
    package = module.partition(".")[0]
    if package in {"flows", "tasks"}:
        assert not imports(path, "localbatch", "task_script")
        assert bool(imports(path, "azure.batch")) == (module == "tasks.azure.batch")
        assert bool(imports(path, "azure.storage")) == (module == "tasks.azure.blob")
    if package == "tasks":
        assert not imports(path, "flows")
        assert not imports(path, "prefect") or module.startswith(MAY_IMPORT_PREFECT)
    if package == "task_script":
        outside = {name.split(".")[0] for name in imports_of(path)} - set(sys.stdlib_module_names)
        assert outside <= {"task_script", ""}


@pytest.mark.parametrize("package", LAYERS)
def test_parts_import_only_lower_parts(package):
    layers = LAYERS[package]
    for module, imported in local_imports().items():
        if module.count(".") == 0 or module.partition(".")[0] != package:
            continue
        part = module.split(".")[1]
        for name in imported:
            if name.startswith(f"{package}."):
                assert layers.index(name.split(".")[1]) <= layers.index(part), f"{module} imports {name}"


def test_no_import_cycles():
    graph = local_imports()
    TopologicalSorter({name: graph[name] for name in graph if name.startswith(tuple(LAYERS))}).prepare()


def test_parts_of_tasks_have_few_imports():
    edges = {
        (module.split(".")[1], name.split(".")[1])
        for module, imported in local_imports().items()
        for name in imported
        if module.startswith("tasks.") and name.startswith("tasks.")
    }
    assert len({edge for edge in edges if edge[0] != edge[1]}) <= 40


def test_folders_are_small():
    sizes = Counter(
        path.parent for path in MODULES if path.name != "__init__.py" and name_of(path).startswith(tuple(LAYERS))
    )
    assert {folder: size for folder, size in sizes.items() if size > MAX_MODULES_PER_FOLDER} == {}


def file_of_import(name):
    """Return the file that an import of `name` runs first; None for a module of the standard library."""
    if name.partition(".")[0] in sys.stdlib_module_names:
        return None
    # A namespace package such as `azure` has no file, so look at the packages below it.
    prefixes = accumulate(name.split("."), lambda parent, child: f"{parent}.{child}")
    return next(Path(spec.origin) for prefix in prefixes if (spec := find_spec(prefix)) and spec.origin)


@pytest.mark.parametrize(
    ("distribution", "folders", "exceptions"),
    [
        # Optional: the extra `parquet`.
        ("topn", [REPOSITORY / package for package in PACKAGES], {"pyarrow"}),
        # Only pytest imports the plugin for pytest, and only mypy imports the types.
        ("localbatch-azure", [REPOSITORY / "localbatch/src"], {"pytest", "typing_extensions"}),
    ],
)
def test_imported_packages_are_declared(distribution, folders, exceptions):
    required = [text for text in metadata.requires(distribution) if "extra ==" not in text]
    declared = [re.match(r"[\w.-]+", text)[0] for text in required]
    files = {Path(file.locate()) for name in declared for file in metadata.files(name)}
    files |= {path for folder in folders for path in folder.rglob("*.py")}
    imported = {name for folder in folders for path in folder.rglob("*.py") for name in imports_of(path) if name}
    outside = {name for name in imported if name.partition(".")[0] not in exceptions}
    assert {name for name in outside if (file := file_of_import(name)) and file not in files} == set()


def test_pre_commit_runs_checks_of_lint():
    [repository] = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"]
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)[1]
    commands = [line.strip().replace("$(BIN)", ".venv/bin") for line in lint.splitlines()]
    assert [hook["entry"] for hook in repository["hooks"]] == commands


@pytest.mark.parametrize(("name", "minimum"), [("constraints.txt", 100), ("installer.txt", 1)])
def test_every_pin_has_version_and_hashes(name, minimum):
    text = (REPOSITORY / name).read_text()
    pins = re.findall(r"^[a-z0-9].*(?:\n .*)*", text, re.MULTILINE)
    assert len(pins) >= minimum
    for pin in pins:
        assert re.match(r"[a-z0-9._-]+(\[.*\])?==\S+", pin), pin
        assert "--hash=sha256:" in pin, pin
    assert "://" not in text
    lock_file = REPOSITORY / "localbatch/src/localbatch/azurite_package/package-lock.json"
    assert "resolved" not in lock_file.read_text()


def test_batch_sdk_supports_entra_credentials():
    """Field report 21: the SDK accepts `TokenCredential` since version 15."""
    pin = re.search(r"^azure-batch==(\d+)\.(\d+)", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)
    assert (int(pin.group(1)), int(pin.group(2))) >= (15, 1)


def test_grouped_tests_stay_in_one_process(request):
    """pytest-xdist adds the group to the id of a test and distributes tests by group."""
    if not request.config.getoption("loadgroup", False):
        pytest.skip("only with --dist loadgroup")
    assert request.node.nodeid.endswith("@checked")


def test_make_hides_modules_of_user():
    command = ["make", "--silent", "--eval=variables:;env", "variables"]
    done = subprocess.run(
        command, cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": "."}, capture_output=True, text=True, check=True
    )
    variables = done.stdout.splitlines()
    assert "PYTHONSAFEPATH=1" in variables
    assert not any(line.startswith("PYTHONPATH=") for line in variables)


def test_command_starts_without_prefect():
    """Prefect takes seconds to import, and reads its settings then, after `topn` has set those for the terminal."""
    code = "import flows.cli.main, sys; print(*{'prefect', 'azure.core', 'matplotlib'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
