"""The compiled counts, built once so that undefined behaviour ends the process; fixtures for a conftest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from task_script import compiled
from tasks.workload import task_script_package

SOURCE = Path(compiled.__file__).with_name("counts.c")
TRAPS = ("-fsanitize=undefined", "-fsanitize-trap=undefined", "-Wall", "-Wextra", "-Werror")


class Beside:
    """A loader of a package that has an object beside its modules."""

    def __init__(self, image):
        self.get_data = lambda _path: image


@pytest.fixture(scope="session")
def counts_object():
    """The object for this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task_script_package, "COMPILER", (*task_script_package.COMPILER, *TRAPS))
        return task_script_package._compile(SOURCE.read_bytes(), os.uname().machine)


@pytest.fixture(scope="session", autouse=True)
def compiled_is_found(counts_object):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "__loader__", Beside(counts_object))
        compiled._library.cache_clear()
        yield
    compiled._library.cache_clear()
