"""Fixtures with the compiled task script."""

from __future__ import annotations

import pytest
from compiled_support import counts_library, library_in_package  # noqa: F401 - fixtures

from tasks.workload.word_counts import word_count_workload


@pytest.fixture(autouse=True)
def compiled_once():
    """Override the cache of compiled libraries, so that these tests run the compiler."""


@pytest.fixture(scope="session")
def package(tmp_path_factory):
    """The packed task script."""
    folder = tmp_path_factory.mktemp("package")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOPN_STATE", str(folder / "state"))
        [(name, content)] = word_count_workload(3, ignore_case=False).files.items()
    (folder / name).write_bytes(content)
    return folder / name
