"""The task script with what is compiled."""

from __future__ import annotations

import pytest
from compiled_support import compiled_is_found, counts_object  # noqa: F401 - fixtures

from tasks.workload.word_counts import word_count_workload


@pytest.fixture(autouse=True)
def compiled_once():
    """Compile whenever the product does."""


@pytest.fixture(scope="session")
def package(tmp_path_factory):
    """The task script as it is shipped."""
    folder = tmp_path_factory.mktemp("package")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOPN_STATE", str(folder / "state"))
        [(name, content)] = word_count_workload(3, ignore_case=False).files.items()
    (folder / name).write_bytes(content)
    return folder / name
