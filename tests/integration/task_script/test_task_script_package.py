"""How the task script is packed, with a compiler and without one."""

from __future__ import annotations

import importlib.util
import io
import struct
import subprocess
import zipfile
from pathlib import Path

import pytest

from tasks.progress import listen
from tasks.workload import task_script_package
from tasks.workload.word_counts import word_count_workload

# Source: ELF specification, e_machine.
ELF_MACHINES = {"x86_64": 62, "aarch64": 183}


@pytest.fixture
def state(tmp_path, monkeypatch):
    """The state folder."""
    monkeypatch.setenv("TOPN_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def no_compiler(monkeypatch):
    """A function that takes the compiler away."""
    find = importlib.util.find_spec
    return lambda: monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "ziglang" else find(name)
    )


def members():
    """What is in the package, by its name."""
    [content] = word_count_workload(3, ignore_case=False).files.values()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def objects():
    return {name: content for name, content in members().items() if name.endswith(".so")}


def test_with_a_compiler_and_without_one_results_are_known_by_the_same_key(state, no_compiler):
    with_compiler = word_count_workload(3, ignore_case=False)
    packed = dict(with_compiler.files)
    no_compiler()
    without = word_count_workload(3, ignore_case=False)

    assert with_compiler.sha256 == without.sha256
    assert with_compiler.command == without.command
    assert packed.keys() == without.files.keys()
    assert packed != dict(without.files)
    assert objects() == {}


@pytest.mark.parametrize("changed", ["counts.c", "counting.py"])
def test_another_source_is_another_key(state, monkeypatch, changed):
    key = word_count_workload(3, ignore_case=False).sha256
    sources = task_script_package._sources()
    sources[f"task_script/{changed}"] += b"\n"
    monkeypatch.setattr(task_script_package, "_sources", lambda: sources)

    assert word_count_workload(3, ignore_case=False).sha256 != key


def test_there_is_an_object_for_each_machine_and_it_asks_for_no_version_of_a_library(state):
    found = objects()

    assert found.keys() == {f"task_script/counts-{machine}.so" for machine in ELF_MACHINES}
    for machine, number in ELF_MACHINES.items():
        content = found[f"task_script/counts-{machine}.so"]
        assert content[:7] == b"\x7fELF\x02\x01\x01"  # 64 bits, the lowest byte first
        assert struct.unpack_from("<HH", content, 16) == (3, number)  # A shared object.
        assert b"GLIBC" not in content
        assert b".so" not in content


def test_equal_sources_make_equal_packages(state, tmp_path, monkeypatch):
    first = members()
    monkeypatch.setenv("TOPN_STATE", str(tmp_path / "another"))

    assert members() == first


def test_what_is_compiled_is_kept(state, monkeypatch):
    first = members()
    monkeypatch.setattr(subprocess, "run", None)

    assert members() == first


def test_naming_the_work_compiles_nothing(state):
    workload = word_count_workload(3, ignore_case=False)

    assert workload.sha256
    assert list(workload.files)
    assert not state.exists()


def test_a_compiler_that_fails_leaves_python_to_count_and_says_so(state, monkeypatch):
    monkeypatch.setattr(task_script_package, "COMPILER", ("cc", "--no-such-option"))
    told = []

    with listen(told.append):
        assert objects() == {}

    [progress] = told
    assert progress.note.startswith("The word counter is not compiled, and nodes count more slowly: ")
    assert not list(Path(state).rglob("*.so"))
