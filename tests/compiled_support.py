"""Fixtures with the compiled counts, built once and with traps for undefined behaviour."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from task_script.native import compiled
from tasks.workload import task_script_package

SOURCE = Path(compiled.__file__).with_name("counts.c")
TRAPS = ("-fsanitize=undefined", "-fsanitize-trap=undefined", "-Wall", "-Wextra", "-Werror")


class LibraryLoader:
    """The loader of a package that contains the compiled library."""

    def __init__(self, content):
        self.get_data = lambda _path: content


@pytest.fixture(scope="session")
def counts_library():
    """The library for this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task_script_package, "COMPILER", (*task_script_package.COMPILER, *TRAPS))
        return task_script_package._compile(SOURCE.read_bytes(), os.uname().machine)


@pytest.fixture(scope="session", autouse=True)
def library_in_package(counts_library):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "__loader__", LibraryLoader(counts_library))
        compiled._load_library.cache_clear()
        yield
    compiled._load_library.cache_clear()
