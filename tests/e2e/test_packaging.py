"""The contents of the wheels, and that the wheels work outside the repository."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from contextlib import suppress
from importlib import metadata

import pytest
import uv
from tests_support import REPOSITORY

from flows.servers.prefect_server import template_path
from localbatch.processes.installation import azurite_folder

PACKAGES = ("flows", "tasks", "task_script")
MODULES = sorted(path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py"))
LOCALBATCH = REPOSITORY / "localbatch"
# Faster than pip, and it needs no pip in the new environments.
UV = uv.find_uv_bin()


def build(folder, project):
    command = [UV, "build", "--wheel", "--no-build-isolation", "--python", sys.executable, "--out-dir", str(folder)]
    subprocess.run([*command, str(project)], check=True, capture_output=True, timeout=120)
    [wheel] = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build(tmp_path_factory.mktemp("wheel"), REPOSITORY)


@pytest.fixture(scope="module")
def localbatch_wheel(tmp_path_factory):
    return build(tmp_path_factory.mktemp("localbatch-wheel"), LOCALBATCH)


def test_wheel_holds_packages_and_command_only(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {*PACKAGES, "topn_command.py", "topn-0.1.0.dist-info"}
    assert all(
        name.endswith((".py", ".c", ".js", ".json", ".jinja", ".sh")) for name in names if "dist-info" not in name
    )
    # Data files that the code reads.
    assert {
        "tasks/workload/run_pack.sh",
        "tasks/report/report.html.jinja",
        "tasks/report/report.js",
        "task_script/native/counts.c",
    } <= set(names)
    assert not [name for name in names if "node_modules" in name or "__pycache__" in name]


def test_wheel_has_every_module_and_licence(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        [licence] = [name for name in names if name.endswith(".dist-info/licenses/LICENSE")]
        assert archive.read(licence) == (REPOSITORY / "LICENSE").read_bytes()
        described = archive.read(licence.replace("licenses/LICENSE", "METADATA")).decode()
    assert "License-Expression: MIT\n" in described
    assert {str(path.relative_to(REPOSITORY)) for path in MODULES} <= names


def test_localbatch_wheel_is_complete(localbatch_wheel):
    with zipfile.ZipFile(localbatch_wheel) as archive:
        names = {name for name in archive.namelist() if "dist-info" not in name}
    sources = LOCALBATCH / "src"
    modules = {path.relative_to(sources).as_posix() for path in sources.rglob("*.py")}
    lock_files = {f"localbatch/azurite_package/{name}.json" for name in ("package", "package-lock")}
    assert names == modules | lock_files


@pytest.fixture
def install(tmp_path):
    """Return a function that installs wheels in a new environment.

    The new environment can import the packages of this one, but not the two projects or this folder.
    """

    def install_wheels(*wheels):
        environment = tmp_path / "environment"
        venv.create(environment)
        [packages] = environment.glob("lib/python*/site-packages")
        install = [UV, "pip", "install", "--python", str(environment), "--no-deps", "--no-index", "--offline"]
        subprocess.run([*install, *map(str, wheels)], check=True, capture_output=True, timeout=120)
        # Without it, the Prefect server migrates a new database; tests/e2e/test_database_template.py does that.
        if (template := template_path()) is not None and template.exists():
            copy = environment / template.relative_to(sys.prefix)
            copy.parent.mkdir(parents=True)
            shutil.copy(template, copy)
        # A .pth file adds a folder to the path, but Python ignores the .pth files in that folder.
        (packages / "packages-of-this-environment.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
        variables = {name: os.environ[name] for name in ("PATH", "LOCALBATCH_DATA")}
        variables |= {"HOME": str(tmp_path), "TOPN_STATE": str(tmp_path / "state")}

        def run(program, *arguments):
            command = [environment / "bin" / program, *arguments]
            done = subprocess.run(
                command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=120, check=False
            )
            assert done.returncode == 0, done.stderr
            return done.stdout

        def is_installed_here(*names):
            files = run("python", "-c", f"import {', '.join(names)}; print({'.__file__, '.join(names)}.__file__)")
            return all(file.startswith(str(packages)) for file in files.split())

        return run, is_installed_here

    return install_wheels


def test_installed_wheel_runs_outside_repository(wheel, install, tmp_path):
    run, is_installed_here = install(wheel)
    assert is_installed_here(*PACKAGES)
    assert "INPUT" in run("topn", "run", "--help")
    (tmp_path / "a.txt").write_text("one two two")
    assert run("topn", "plan", "a.txt").startswith("1 new,")
    assert '["two", 2]' in run("python", "-m", "task_script", "a.txt") + (tmp_path / "a_OUTPUT.json").read_text()


def test_installed_wheels_run_on_local_azure(wheel, localbatch_wheel, install, tmp_path):
    run, _ = install(wheel, localbatch_wheel)
    run("localbatch", "install")
    (tmp_path / "a.txt").write_text("one two two")
    assert "1 counted" in run("topn", "run", "a.txt")
    assert (tmp_path / "results" / "a_OUTPUT.json").exists()


def test_installed_localbatch_wheel_serves_both_accounts(localbatch_wheel, install):
    run, is_installed_here = install(localbatch_wheel)
    assert is_installed_here("localbatch")
    assert run("localbatch", "install") == f"Azurite is in {azurite_folder()}\n"
    assert run("localbatch", "exec", "--", "sh", "-c", "echo $TOPN_STORAGE_ENDPOINT").startswith("http://127.0.0.1:")


def test_bill_of_materials_lists_installed_pinned_packages(tmp_path):
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


def test_flow_import_compiles_no_grammar():
    """A dependency of `make sbom` compiled a grammar on import, which doubled the start time of every process."""
    loaded = "import flows.topn, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    modules = subprocess.run([sys.executable, "-c", loaded], check=True, capture_output=True, text=True, timeout=120)
    assert {"lark", "rfc3987_syntax"} & set(modules.stdout.split()) == set()
