"""What the wheel holds, and that it works away from the repository."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from contextlib import suppress
from importlib import metadata

import pytest
from tests_support import REPOSITORY

PACKAGES = ("flows", "tasks", "task_script", "localbatch")
MODULES = sorted(path for package in PACKAGES for path in (REPOSITORY / package).glob("*.py"))


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
    assert {"tasks/workload/run_pack.sh", "tasks/report/report.html.jinja", "task_script/native/counts.c"} <= set(names)
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


def test_no_process_compiles_a_grammar_before_the_flow_begins():
    """A tool of `make sbom` once brought one along, which doubled the start of every process: jsonschema imports it."""
    loaded = "import flows.topn, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    modules = subprocess.run([sys.executable, "-c", loaded], check=True, capture_output=True, text=True, timeout=120)
    assert {"lark", "rfc3987_syntax"} & set(modules.stdout.split()) == set()
