"""The task script as a process: resource limits, pipes, other interpreters."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import zipapp
from pathlib import Path

import pytest

import task_script

PACKAGE = Path(task_script.__file__).parent
TEXT = "the cat, the dog\n"
# Enough for Python and a few megabytes, but not for the counts of the numbers.
SMALL_MEMORY_BYTES = 48 * 2**20


@pytest.fixture(scope="module")
def numbers():
    return "".join(f"{number} " for number in range(700_000))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The current directory, without the environment variables of a node."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("AZ_BATCH_")]:
        monkeypatch.delenv(name)
    return tmp_path


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def run_script(*arguments, command=(sys.executable, "-m", "task_script"), **options):
    environ = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, env=environ, **options)


def find_python(version):
    python = shutil.which(f"python{version}")
    # A version manager may have a command for a version that is not installed.
    if python is None or subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode:
        pytest.skip(f"Python {version} is not installed")
    return python


def test_full_disk_keeps_previous_result(folder):
    (folder / "a.txt").write_text(TEXT)
    (folder / "a_OUTPUT.txt").write_text("previous result")

    script = run_script("a.txt", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8, 8)))

    assert (script.returncode, script.stdout) == (1, "")
    assert script.stderr == "output error: a_OUTPUT.txt cannot be written: File too large\n"
    assert names_in(folder) == ["a.txt", "a_OUTPUT.txt"]
    assert (folder / "a_OUTPUT.txt").read_text() == "previous result"


@pytest.fixture
def programs(package):
    """The command lines of the task script: from its sources, and packed with the compiled library."""
    return {"Python": (sys.executable, "-m", "task_script"), "compiled": (sys.executable, str(package))}


EACH_PROGRAM = pytest.mark.parametrize("program", ["Python", "compiled"])


def limited(kind, limit):
    return {"preexec_fn": lambda: resource.setrlimit(kind, (limit, limit))}


@EACH_PROGRAM
def test_out_of_memory_fails_file(folder, program, programs, numbers):
    # The compiled counts use less memory per word.
    more = "" if program == "Python" else " ".join(map(str, range(2_000_000, 3_500_000)))
    (folder / "a.txt").write_text(numbers + more)

    script = run_script(
        "a.txt",
        "--memory-mb",
        "999",
        command=programs[program],
        **limited(resource.RLIMIT_AS, SMALL_MEMORY_BYTES),
    )

    assert script.stderr == "input error: a.txt does not fit in memory; set a lower --memory-mb\n"
    assert script.returncode == 1


@EACH_PROGRAM
def test_memory_limit_allows_large_vocabulary(folder, monkeypatch, program, programs, numbers):
    (folder / "a.txt").write_text(numbers)
    (folder / "node").mkdir()
    monkeypatch.setenv("AZ_BATCH_TASK_WORKING_DIR", str(folder / "node"))

    options = ["--memory-mb", "8", "--num-words", "2000"]
    limit = limited(resource.RLIMIT_AS, SMALL_MEMORY_BYTES)
    script = run_script("a.txt", *options, command=programs[program], **limit)

    assert (script.returncode, script.stderr) == (0, "")
    result = json.loads((folder / "a_OUTPUT.json").read_text())
    assert (result["words"], result["distinct"]) == (700_000, 700_000)
    assert result["top"] == [[word, 1] for word in sorted(numbers.split())[:2000]]
    assert names_in(folder / "node") == []


@EACH_PROGRAM
def test_full_disk_fails_file_above_memory_limit(folder, program, programs, numbers):
    (folder / "a.txt").write_text(numbers)

    limit = limited(resource.RLIMIT_FSIZE, 100_000)
    script = run_script("a.txt", "--memory-mb", "8", command=programs[program], **limit)

    assert script.stderr == (
        "a.txt cannot be counted: its counts exceed --memory-mb, and the temporary file cannot be written: "
        "File too large\n"
    )
    assert script.returncode == 1
    assert names_in(folder) == ["a.txt"]


def test_missing_folder_fails_file_above_memory_limit(folder, monkeypatch, numbers):
    (folder / "a.txt").write_text(numbers)
    monkeypatch.setenv("AZ_BATCH_TASK_WORKING_DIR", str(folder / "missing"))

    script = run_script("a.txt", "--memory-mb", "8")

    assert script.returncode == 1
    assert script.stderr.endswith("the temporary file cannot be written: No such file or directory\n")


def test_counts_standard_input(folder):
    script = run_script("/dev/stdin", "--output-dir", ".", input="\ufeffb a b")

    assert (script.returncode, script.stderr) == (0, "")
    assert json.loads((folder / "stdin_OUTPUT.json").read_text())["top"] == [["b", 2], ["a", 1]]


def test_small_file_imports_no_slow_modules(folder):
    (folder / "a.txt").write_text(TEXT)
    code = "import sys, task_script.top_words as t; print(t.main(['a.txt']), *sys.modules)"

    status, *modules = run_script("-S", "-c", code, command=[sys.executable]).stdout.split()

    assert status == "0"
    assert not {"argparse", "ctypes", "json", "re", "string", "tempfile", "typing"}.intersection(modules)
    assert not {"task_script.large_files", "task_script.native"}.intersection(modules)


def test_module_and_zip_have_equal_results(folder):
    source = folder / "source"
    shutil.copytree(PACKAGE, source / "task_script", ignore=shutil.ignore_patterns("__pycache__"))
    (source / "__main__.py").write_text("from task_script.top_words import main; raise SystemExit(main())\n")
    zipapp.create_archive(source, "topn.pyz")
    (folder / "a.txt").write_text(TEXT)
    packed = (sys.executable, "-I", "-S", "topn.pyz")

    assert run_script("--check", command=packed).returncode == 0
    results = []
    for command in ((sys.executable, "-m", "task_script"), packed):
        script = run_script("a.txt", command=command)
        assert (script.returncode, script.stdout, script.stderr) == (0, "", "")
        results.append((folder / "a_OUTPUT.json").read_text())

    assert results[0] == results[1]


@pytest.mark.parametrize("version", ["3.6", "3.7"])
def test_old_interpreter_gets_clear_message(version):
    python = find_python(version)

    script = run_script("--check", command=(python, "-m", "task_script"))

    assert script.returncode == 1
    assert script.stderr.startswith(f"topn needs Python 3.8 or newer on the node, but this is {version}.")
    assert len(script.stderr.splitlines()) == 1


@pytest.mark.parametrize("version", ["3.8", "3.9", "3.12", "3.13", "3.14"])
def test_runs_on_other_pythons(folder, version):
    python = find_python(version)
    (folder / "a.txt").write_text(TEXT)

    script = run_script("a.txt", command=(python, "-m", "task_script"))

    assert (script.returncode, script.stderr) == (0, "")
    assert json.loads((folder / "a_OUTPUT.json").read_text())["top"] == [["the", 2], ["cat", 1], ["dog", 1]]
