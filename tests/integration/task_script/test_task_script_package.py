"""The packed task script, with and without a compiler."""

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
    """A function that hides the compiler."""
    find = importlib.util.find_spec
    return lambda: monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "ziglang" else find(name)
    )


def members():
    """The files in the package, by name."""
    [content] = word_count_workload(3, ignore_case=False).files.values()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def libraries():
    return {name: content for name, content in members().items() if name.endswith(".so")}


def test_compiler_does_not_change_content_key(state, no_compiler):
    with_compiler = word_count_workload(3, ignore_case=False)
    packed = dict(with_compiler.files)
    no_compiler()
    without = word_count_workload(3, ignore_case=False)

    assert with_compiler.sha256 == without.sha256
    assert with_compiler.command == without.command
    assert packed.keys() == without.files.keys()
    assert packed != dict(without.files)
    assert libraries() == {}


@pytest.mark.parametrize("changed", ["native/counts.c", "native/compiled.py", "counting.py"])
def test_changed_source_changes_content_key(state, monkeypatch, changed):
    key = word_count_workload(3, ignore_case=False).sha256
    sources = task_script_package._sources()
    sources[f"task_script/{changed}"] += b"\n"
    monkeypatch.setattr(task_script_package, "_sources", lambda: sources)

    assert word_count_workload(3, ignore_case=False).sha256 != key


def test_libraries_for_all_machines_need_no_library(state):
    found = libraries()

    assert found.keys() == {f"task_script/native/counts-{machine}.so" for machine in ELF_MACHINES}
    for machine, number in ELF_MACHINES.items():
        content = found[f"task_script/native/counts-{machine}.so"]
        assert content[:7] == b"\x7fELF\x02\x01\x01"  # 64 bits, little-endian
        assert struct.unpack_from("<HH", content, 16) == (3, number)  # Shared object.
        assert b"GLIBC" not in content
        assert b".so" not in content


def test_equal_sources_make_equal_packages(state, tmp_path, monkeypatch):
    first = members()
    monkeypatch.setenv("TOPN_STATE", str(tmp_path / "other"))

    assert members() == first


def test_compiled_libraries_are_cached(state, monkeypatch):
    first = members()
    monkeypatch.setattr(subprocess, "run", None)

    assert members() == first


def test_content_key_needs_no_compiler(state):
    workload = word_count_workload(3, ignore_case=False)

    assert workload.sha256
    assert list(workload.files)
    assert not state.exists()


def test_failing_compiler_leaves_package_in_python(state, monkeypatch):
    monkeypatch.setattr(task_script_package, "COMPILER", ("cc", "--no-such-option"))
    notes = []

    with listen(notes.append):
        assert libraries() == {}

    [progress] = notes
    assert progress.note.startswith("The word counter cannot be compiled, so nodes count more slowly: ")
    assert not list(Path(state).rglob("*.so"))
