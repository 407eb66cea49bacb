"""The task script as a process: limits, signals, pipes, other interpreters."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import zipapp
from pathlib import Path

import pytest
from tests_support import wait_until

import task_script

PACKAGE = Path(task_script.__file__).parent
TEXT = "the cat, the dog\n"
NUMBERS = "".join(f"{number} " for number in range(700_000))
SMALLEST_NUMBERS = sorted(NUMBERS.split())[:2000]
# Holds Python and a few megabytes, but not the counts of so many words.
SMALL_MEMORY_BYTES = 48 * 2**20


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The folder that the tests work in, off any node."""
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
    # A version manager may have put a name on the path with nothing behind it.
    if python is None or subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode:
        pytest.skip(f"no Python {version} here")
    return python


def test_a_full_disk_keeps_the_last_result_and_leaves_nothing(folder):
    (folder / "a.txt").write_text(TEXT)
    (folder / "a_OUTPUT.txt").write_text("the last result")

    script = run_script("a.txt", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8, 8)))

    assert (script.returncode, script.stdout) == (1, "")
    assert script.stderr == "output error: a_OUTPUT.txt cannot be written: File too large\n"
    assert names_in(folder) == ["a.txt", "a_OUTPUT.txt"]
    assert (folder / "a_OUTPUT.txt").read_text() == "the last result"


@pytest.fixture
def programs(package):
    """The task script from its sources, and packed with what is compiled."""
    return {"Python": (sys.executable, "-m", "task_script"), "compiled": (sys.executable, str(package))}


# Each program in one process and in several.
EACH_PROGRAM = pytest.mark.parametrize(
    ("program", "processes"), [("Python", "1"), ("Python", "2"), ("compiled", "1"), ("compiled", "2")]
)


def limited(kind, limit):
    return {"preexec_fn": lambda: resource.setrlimit(kind, (limit, limit))}


@EACH_PROGRAM
def test_too_little_memory_is_a_failure_of_the_file(folder, program, processes, programs):
    # What is compiled takes less memory for a word.
    more = "" if program == "Python" else " ".join(map(str, range(2_000_000, 3_500_000)))
    (folder / "a.txt").write_text(NUMBERS + more)

    script = run_script(
        "a.txt",
        "--processes",
        processes,
        "--memory-mb",
        "999",
        command=programs[program],
        **limited(resource.RLIMIT_AS, SMALL_MEMORY_BYTES),
    )

    assert script.stderr == "input error: a.txt has more words than fit in memory\n"
    assert script.returncode == 1


@EACH_PROGRAM
def test_with_a_bound_on_memory_the_same_file_is_counted(folder, monkeypatch, program, processes, programs):
    (folder / "a.txt").write_text(NUMBERS)
    (folder / "node").mkdir()
    monkeypatch.setenv("AZ_BATCH_TASK_WORKING_DIR", str(folder / "node"))

    bounds = ["--memory-mb", "8", "--num-words", "2000"]
    limit = limited(resource.RLIMIT_AS, SMALL_MEMORY_BYTES)
    script = run_script("a.txt", *bounds, "--processes", processes, command=programs[program], **limit)

    assert (script.returncode, script.stderr) == (0, "")
    result = json.loads((folder / "a_OUTPUT.json").read_text())
    assert (result["words"], result["distinct"]) == (700_000, 700_000)
    assert result["top"] == [[word, 1] for word in SMALLEST_NUMBERS]
    assert names_in(folder / "node") == []


@EACH_PROGRAM
def test_a_disk_too_full_for_counts_that_do_not_fit_in_memory(folder, program, processes, programs):
    (folder / "a.txt").write_text(NUMBERS)

    limit = limited(resource.RLIMIT_FSIZE, 100_000)
    script = run_script("a.txt", "--memory-mb", "8", "--processes", processes, command=programs[program], **limit)

    assert script.stderr == (
        "a.txt is not counted: its counts do not fit in memory and cannot be put aside: File too large\n"
    )
    assert script.returncode == 1
    assert names_in(folder) == ["a.txt"]


def test_without_a_folder_for_counts_that_do_not_fit_in_memory(folder, monkeypatch):
    (folder / "a.txt").write_text(TEXT)
    monkeypatch.setenv("AZ_BATCH_TASK_WORKING_DIR", str(folder / "missing"))

    script = run_script("a.txt", "--processes", "2")

    assert script.stderr.startswith(
        "a.txt is not counted: its counts do not fit in memory and cannot be put aside: No "
    )


@pytest.fixture
def counting(folder):
    """The task script, while two processes of it count a large file; and those."""
    with (folder / "a.txt").open("wb") as file:
        for _ in range(15):
            file.write(NUMBERS.encode())
    command = [sys.executable, "-m", "task_script", "a.txt", "--processes", "2"]
    environ = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environ) as script:
        children = Path(f"/proc/{script.pid}/task/{script.pid}/children")
        wait_until(lambda: len(children.read_text().split()) == 2, "two processes", while_running=script)
        yield script, [int(child) for child in children.read_text().split()]
        script.kill()


def test_a_killed_process_is_a_failure_that_is_told(folder, counting):
    script, children = counting

    os.kill(children[0], signal.SIGKILL)

    assert script.communicate()[1] == (
        "a.txt is not counted: a process that counted a part of it was killed, maybe for lack of memory\n"
    )
    assert script.returncode == 1
    assert names_in(folder) == ["a.txt"]


def test_killed_it_leaves_no_process(counting):
    script, children = counting

    script.kill()

    wait_until(lambda: not any(Path(f"/proc/{child}").exists() for child in children), "the end of all processes")


def test_standard_input_is_counted(folder):
    script = run_script("/dev/stdin", "--output-dir", ".", input="\ufeffb a b")

    assert (script.returncode, script.stderr) == (0, "")
    assert json.loads((folder / "stdin_OUTPUT.json").read_text())["top"] == [["b", 2], ["a", 1]]


def test_for_a_small_file_nothing_is_imported_that_takes_long(folder):
    (folder / "a.txt").write_text(TEXT)
    code = "import sys, task_script.top_words as t; print(t.main(['a.txt']), *sys.modules)"

    status, *modules = run_script("-S", "-c", code, command=[sys.executable]).stdout.split()

    assert status == "0"
    assert not {"argparse", "ctypes", "json", "pickle", "re", "string", "tempfile", "typing"}.intersection(modules)


def test_as_a_module_and_in_a_zip_it_is_the_same_program(folder):
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
def test_an_interpreter_that_is_too_old_is_told_so(version):
    python = find_python(version)

    script = run_script("--check", command=(python, "-m", "task_script"))

    assert script.returncode == 1
    assert script.stderr.startswith(f"topn needs Python 3.8 or newer on the node, this is {version}.")
    assert len(script.stderr.splitlines()) == 1


@pytest.mark.parametrize("version", ["3.8", "3.9", "3.12", "3.13", "3.14"])
def test_it_runs_on_other_pythons(folder, version):
    python = find_python(version)
    (folder / "a.txt").write_text(TEXT)

    script = run_script("a.txt", command=(python, "-m", "task_script"))

    assert (script.returncode, script.stderr) == (0, "")
    assert json.loads((folder / "a_OUTPUT.json").read_text())["top"] == [["the", 2], ["cat", 1], ["dog", 1]]
