"""What all tests share: an environment without the machine's own settings, one local Azure, one Prefect server."""

from __future__ import annotations

import os

import pytest

from localbatch.testing import azure_faults, local_azure, local_batch  # noqa: F401 - fixtures for all tests

for name in list(os.environ):
    if name.startswith(("TOPN_", "PREFECT_", "AZURE_")):
        del os.environ[name]
# No test may talk to anything but this machine.
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["DO_NOT_TRACK"] = "1"


@pytest.fixture(autouse=True)
def clean_environ(monkeypatch, tmp_path_factory):
    """Keep what one test sets, and this machine's `.env`, away from the others."""
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory):
    """The address of a Prefect server of the tests' own."""
    from flows.services import PrefectServer  # noqa: PLC0415 - after the environment is clean

    with PrefectServer(tmp_path_factory.mktemp("prefect")) as server:
        server.wait()
        yield server.api_url


@pytest.fixture
def azure_settings(local_azure, monkeypatch):  # noqa: F811 - the fixture
    """The settings of the local Azure, in the environment of the test."""
    for variable, value in local_azure.environment.items():
        monkeypatch.setenv(variable, value)
    return local_azure
