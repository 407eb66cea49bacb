"""Who imports whom, what the wheel holds, and what the pins promise."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from contextlib import suppress
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests_support import REPOSITORY

PACKAGES = ("flows", "tasks", "task_script", "localbatch")
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
    if package == "localbatch":
        assert not imports(path, "flows", "tasks", "task_script", "prefect", "azure.batch")
    if package == "task_script":
        outside = {name.split(".")[0] for name in imports_of(path)} - set(sys.stdlib_module_names)
        assert outside <= {"task_script", ""}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(folder)]
    subprocess.run([*command, str(REPOSITORY)], check=True, capture_output=True, timeout=120)
    [wheel] = folder.glob("*.whl")
    return wheel


def test_the_wheel_holds_the_four_packages_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {*PACKAGES, "topn-0.1.0.dist-info"}
    assert all(name.endswith((".py", ".c", ".json", ".jinja", ".sh")) for name in names if "dist-info" not in name)
    # What is read from beside the code.
    assert {"tasks/run_pack.sh", "tasks/report.html.jinja", "task_script/counts.c"} <= set(names)
    assert not [name for name in names if "node_modules" in name or "__pycache__" in name]


def test_the_wheel_has_every_module_and_the_licence(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        [licence] = [name for name in names if name.endswith(".dist-info/licenses/LICENSE")]
        assert archive.read(licence) == (REPOSITORY / "LICENSE").read_bytes()
        described = archive.read(licence.replace("licenses/LICENSE", "METADATA")).decode()
    assert "License-Expression: MIT\n" in described
    assert {str(path.relative_to(REPOSITORY)) for path in MODULES} <= names


def test_an_installed_wheel_runs_away_from_the_repository(wheel, tmp_path):
    """In a fresh environment, which sees the packages of this one, but neither this project nor its folder."""
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True, capture_output=True, timeout=120)
    python = environment / "bin" / "python"
    [packages] = environment.glob("lib/python*/site-packages")
    command = [str(python), "-m", "pip", "install", "--no-deps", "--no-index", "-q", str(wheel)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    # Only names a folder; what lies there in turn, such as this project's own, is not read.
    (packages / "packages-of-this-environment.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    variables = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TOPN_STATE": str(tmp_path / "state")}

    def run(*command):
        done = subprocess.run(
            command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = run(python, "-c", "import flows, tasks, task_script, localbatch as l; print(flows.__path__[0], l.__file__)")
    assert all(place.startswith(str(packages)) for place in where.split())
    assert "INPUT" in run(environment / "bin" / "topn", "run", "--help")
    assert "serve" in run(environment / "bin" / "localbatch", "--help")
    (tmp_path / "a.txt").write_text("one two two")
    assert run(environment / "bin" / "topn", "plan", "a.txt").startswith("1 new,")
    assert '["two", 2]' in run(python, "-m", "task_script", "a.txt") + (tmp_path / "a_OUTPUT.json").read_text()


# Reads the metadata of every package: half a minute.
@pytest.mark.faults
def test_the_bill_of_materials_has_every_pinned_package_that_is_installed(tmp_path):
    bill = tmp_path / "sbom.json"
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible", "--of", "JSON"]
    arguments = ["--pyproject", str(REPOSITORY / "pyproject.toml"), "-o", str(bill), sys.executable]
    subprocess.run([*command, *arguments], check=True, capture_output=True, timeout=250)
    document = json.loads(bill.read_text())
    assert (document["bomFormat"], document["metadata"]["component"]["name"]) == ("CycloneDX", "topn")
    named = {component["name"].lower().replace("_", "-").replace(".", "-") for component in document["components"]}
    installed = {name for name in pinned() if find_distribution(name)}
    assert installed - named == set()


def pinned():
    return re.findall(r"^([a-z0-9-]+)==", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)


def find_distribution(name):
    with suppress(metadata.PackageNotFoundError):
        return metadata.distribution(name)
    return None


def test_every_pin_has_a_version_and_hashes_and_names_no_index():
    text = (REPOSITORY / "constraints.txt").read_text()
    pins = re.findall(r"^[a-z0-9].*(?:\n .*)*", text, re.MULTILINE)
    assert len(pins) > 100
    for pin in pins:
        assert re.match(r"[a-z0-9._-]+(\[.*\])?==\S+", pin), pin
        assert "--hash=sha256:" in pin, pin
    assert "://" not in text
    assert "resolved" not in (REPOSITORY / "localbatch/azurite/package-lock.json").read_text()


def test_no_process_compiles_a_grammar_before_the_flow_begins():
    """A tool of `make sbom` once brought one along, which doubled the start of every process: jsonschema imports it."""
    loaded = "import flows.topn, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    modules = subprocess.run([sys.executable, "-c", loaded], check=True, capture_output=True, text=True, timeout=120)
    assert {"lark", "rfc3987_syntax"} & set(modules.stdout.split()) == set()


def test_the_batch_sdk_is_one_that_takes_entra_credentials():
    """Field report 21: before 15, the SDK knew no `TokenCredential`."""
    pin = re.search(r"^azure-batch==(\d+)\.(\d+)", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)
    assert (int(pin.group(1)), int(pin.group(2))) >= (15, 1)
