"""Who imports whom, and what the pins promise."""

from __future__ import annotations

import ast
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests_support import REPOSITORY

PACKAGES = ("flows", "tasks", "task_script")
MODULES = sorted(path for package in PACKAGES for path in (REPOSITORY / package).glob("*.py"))

# Steps, in the order of the process; they alone import Prefect beside the flows.
STEPS = {
    "check",
    "begin",
    "plan",
    "provision",
    "stage",
    "submit",
    "monitor",
    "renew",
    "collect",
    "report",
    "artifacts",
    "cleanup",
    "sweep",
    "step",
}

# The Prefect block of the settings is no step, and knows Prefect all the same.
KNOW_PREFECT = STEPS | {"azure_block"}


def imports_of(path):
    """Every module that a file imports, anywhere in it."""
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


def test_the_packages_are_those_of_this_repository():
    for package in PACKAGES:
        assert Path(find_spec(package).origin).parent == REPOSITORY / package


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_layers_are_kept(path):
    package, module = path.parent.name, path.stem
    if package in {"flows", "tasks"}:
        assert not imports(path, "localbatch", "task_script")
        assert bool(imports(path, "azure.batch")) == (module == "batch_account")
        assert bool(imports(path, "azure.storage")) == (module == "blob_account")
    if package == "tasks":
        assert not imports(path, "flows")
        assert not imports(path, "prefect") or module in KNOW_PREFECT
        if module not in STEPS:
            assert not imports(path, *(f"tasks.{step}" for step in STEPS))
    if package == "task_script":
        outside = {name.split(".")[0] for name in imports_of(path)} - set(sys.stdlib_module_names)
        assert outside <= {"task_script", ""}


def test_every_pin_has_a_version_and_hashes_and_names_no_index():
    text = (REPOSITORY / "constraints.txt").read_text()
    pins = re.findall(r"^[a-z0-9].*(?:\n .*)*", text, re.MULTILINE)
    assert len(pins) > 100
    for pin in pins:
        assert re.match(r"[a-z0-9._-]+(\[.*\])?==\S+", pin), pin
        assert "--hash=sha256:" in pin, pin
    assert "://" not in text
    lock_file = REPOSITORY / "localbatch/src/localbatch/azurite_package/package-lock.json"
    assert "resolved" not in lock_file.read_text()


def test_the_batch_sdk_is_one_that_takes_entra_credentials():
    """Field report 21: before 15, the SDK knew no `TokenCredential`."""
    pin = re.search(r"^azure-batch==(\d+)\.(\d+)", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)
    assert (int(pin.group(1)), int(pin.group(2))) >= (15, 1)


@pytest.mark.xdist_group("checked")
def test_groups_of_tests_stay_in_one_process(request):
    """pytest-xdist adds the group to the id of a test, and distributes by that."""
    if not request.config.getoption("loadgroup", False):
        pytest.skip("only with --dist loadgroup")
    assert request.node.nodeid.endswith("@checked")
