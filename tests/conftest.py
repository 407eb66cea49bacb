"""What all tests share: an environment without the machine's own settings, one local Azure, one Prefect server."""

from __future__ import annotations

import os
import signal

import pytest
from identity_support import TENANT, ManagedIdentity, make_authority
from tests_support import resources_of_runs

from localbatch import LocalAzure
from localbatch.processes.installation import azurite_folder

for name in list(os.environ):
    if name.startswith(("TOPN_", "PREFECT_", "AZURE_", "IDENTITY_", "MSI_")):
        del os.environ[name]
# Tests have home folders of their own; Azurite is installed in that of the user.
os.environ.setdefault("LOCALBATCH_DATA", str(azurite_folder().parent))
# No test may talk to anything but this machine.
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["DO_NOT_TRACK"] = "1"
# Where a shell starts the tests in the background, they and what they start would ignore SIGINT; a Prefect worker that is
# told to end sends itself one.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def clean_environ(monkeypatch, tmp_path_factory):
    """Keep what one test sets, and this machine's `.env`, away from the others."""
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory):
    """The address of a Prefect server of the tests' own."""
    from flows.servers.processes import PrefectServer  # noqa: PLC0415 - after the environment is clean

    with PrefectServer(tmp_path_factory.mktemp("prefect")) as server:
        server.wait()
        yield server.api_url


@pytest.fixture
def azure_settings(local_azure, monkeypatch):
    """The settings of the local Azure, in the environment of the test."""
    for variable, value in local_azure.environment.items():
        monkeypatch.setenv(variable, value)
    return local_azure


@pytest.fixture
def nothing_left(azure_settings):
    """Assert that the local Azure holds no job, pool or container of a run that was not there before the test."""
    before = resources_of_runs()

    def check():
        assert resources_of_runs() - before == set()

    return check


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    """The file of a private authority's certificate, and a certificate of this machine that it issued."""
    return make_authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def secured_azure(authority, tmp_path_factory):
    """A local Azure that speaks https, and takes the tokens of one tenant."""
    state = tmp_path_factory.mktemp("secured")
    with LocalAzure(state_dir=state, pace="instant", certificate=authority[1], oauth=True, tenant=TENANT) as azure:
        yield azure


@pytest.fixture
def managed_identity():
    """The identity of this machine, as one in Azure has it."""
    with ManagedIdentity() as identity:
        yield identity


@pytest.fixture
def identity_environment(secured_azure, managed_identity, authority):
    """The variables that lead to an Azure by this machine's identity: there is no key among them."""
    accounts = {name: value for name, value in secured_azure.environment.items() if not name.endswith("_KEY")}
    trust = {"REQUESTS_CA_BUNDLE": str(authority[0]), "SSL_CERT_FILE": str(authority[0])}
    return {**accounts, **trust, **managed_identity.environment, "TOPN_ALLOW_KEYS": "false"}


@pytest.fixture
def identity_settings(identity_environment, monkeypatch):
    """The same, in the environment of the test."""
    from tasks.azure import accounts  # noqa: PLC0415 - after the environment is clean
    from tasks.azure import client as azure_core  # noqa: PLC0415 - after the environment is clean

    for variable, value in identity_environment.items():
        monkeypatch.setenv(variable, value)
    for kept in (azure_core.default_identity, accounts._batch_account, accounts._blob_account):
        kept.cache_clear()
    yield
    for kept in (azure_core.default_identity, accounts._batch_account, accounts._blob_account):
        kept.cache_clear()
