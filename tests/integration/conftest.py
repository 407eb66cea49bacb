"""The `topn` command in this process, on the tests' own servers; and runs that many tests look at."""

from __future__ import annotations

import pytest
from topn_support import Topn, environment_of


@pytest.fixture(scope="session")
def prefect_storage(tmp_path_factory):
    """The folder in which Prefect keeps the results of steps."""
    return tmp_path_factory.mktemp("storage")


@pytest.fixture
def topn(local_azure, prefect_api, prefect_storage, tmp_path, no_pictures):
    """`topn` on the tests' own servers, with a fresh state folder. Its runs send no logs and draw no pictures."""
    environment = environment_of(local_azure, prefect_api, tmp_path / "state")
    return Topn(**environment, PREFECT_LOCAL_STORAGE_PATH=str(prefect_storage))


@pytest.fixture
def no_pictures(monkeypatch):
    """Leave the pictures out of the summary of runs: drawing them takes a third of a run's time."""
    from tasks import artifacts  # noqa: PLC0415 - after the environment is clean

    monkeypatch.setattr(artifacts, "_pictures", lambda report: None)
