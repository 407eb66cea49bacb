"""Fixtures for all tests: a clean environment, one local Azure and one Prefect server."""

from __future__ import annotations

import gc
import os
import re
import secrets
import signal
import tempfile
from pathlib import Path

import certifi
import pytest
from hypothesis import settings
from identity_support import TENANT, ManagedIdentity, make_authority
from tests_support import resources_of_runs

from localbatch import LocalAzure
from localbatch.processes.installation import azurite_folder

# No test asserts a duration, and other programs may slow the machine down.
settings.register_profile("without deadline", deadline=None, max_examples=int(os.environ.get("MAX_EXAMPLES", "30")))
settings.load_profile("without deadline")

# The imports create a million permanent objects. With the default of 700 new objects, collecting garbage among them takes
# a tenth of the time of fast tests.
gc.set_threshold(100_000)

for name in list(os.environ):
    if name.startswith(("TOPN_", "PREFECT_", "AZURE_", "IDENTITY_", "MSI_")):
        del os.environ[name]
# Tests have their own home folders, but Azurite is installed in the user's.
os.environ.setdefault("LOCALBATCH_DATA", str(azurite_folder().parent))
# Tests must not connect to other machines.
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["DO_NOT_TRACK"] = "1"
# The password of the Prefect server that the tests share. Prefect reads it on import.
os.environ["PREFECT_API_AUTH_STRING"] = f"tests:{secrets.token_hex(8)}"
# Each client of Prefect reads a file with certificates, dozens of times in a run, and the usual file takes 20 ms. The Prefect
# servers of the tests use http, so one certificate will do.
_certificates = tempfile.NamedTemporaryFile("w", suffix=".pem")  # noqa: SIM115 - open until the tests end
_certificates.write(re.search("-----BEGIN .*?-----END [A-Z]+-----\n", Path(certifi.where()).read_text(), re.DOTALL)[0])
_certificates.flush()
os.fchmod(_certificates.fileno(), 0o644)
os.environ["PREFECT_API_SSL_CERT_FILE"] = _certificates.name
# A shell that starts tests in the background makes them and their children ignore SIGINT.
# A Prefect worker stops by sending itself that signal.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Run all tests of the local Azure with HTTPS in one process, so that it starts once."""
    for item in items:
        if "secured_azure" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("secured_azure"))


@pytest.fixture(autouse=True)
def clean_environ(monkeypatch, tmp_path_factory):
    """Run each test in an empty folder, away from the `.env` file of this machine."""
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory):
    """The API address of a Prefect server that only the tests use."""
    from flows.servers.processes import PrefectServer  # noqa: PLC0415 - after the environment is clean

    with PrefectServer(tmp_path_factory.mktemp("prefect"), password=os.environ["PREFECT_API_AUTH_STRING"]) as server:
        server.wait()
        yield server.api_url


@pytest.fixture
def azure_settings(local_azure, monkeypatch):
    """Set the local Azure's settings in the environment and return the local Azure."""
    for variable, value in local_azure.environment.items():
        monkeypatch.setenv(variable, value)
    return local_azure


@pytest.fixture
def assert_nothing_left(azure_settings):
    """Return a function that asserts that the test left no job, pool or container of a run."""
    before = resources_of_runs()

    def check():
        assert resources_of_runs() - before == set()

    return check


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    """The certificate file of a private authority, and a server certificate that it issued."""
    return make_authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def secured_azure(authority, tmp_path_factory):
    """A local Azure that uses HTTPS and accepts the tokens of one tenant."""
    state = tmp_path_factory.mktemp("secured")
    with LocalAzure(state_dir=state, pace="instant", certificate=authority[1], oauth=True, tenant=TENANT) as azure:
        yield azure


@pytest.fixture
def managed_identity():
    """A managed identity for this machine."""
    with ManagedIdentity() as identity:
        yield identity


@pytest.fixture
def identity_environment(secured_azure, managed_identity, authority):
    """Environment variables that connect to Azure with the managed identity and no key."""
    accounts = {name: value for name, value in secured_azure.environment.items() if not name.endswith("_KEY")}
    trust = {"REQUESTS_CA_BUNDLE": str(authority[0]), "SSL_CERT_FILE": str(authority[0])}
    return {**accounts, **trust, **managed_identity.environment, "TOPN_ALLOW_KEYS": "false"}


@pytest.fixture
def identity_settings(identity_environment, monkeypatch):
    """Set the variables of `identity_environment` in the environment of the test."""
    from tasks.azure import accounts  # noqa: PLC0415 - after the environment is clean
    from tasks.azure import client as azure_core  # noqa: PLC0415 - after the environment is clean

    for variable, value in identity_environment.items():
        monkeypatch.setenv(variable, value)
    for kept in (azure_core.default_identity, accounts._batch_account, accounts._blob_account):
        kept.cache_clear()
    yield
    for kept in (azure_core.default_identity, accounts._batch_account, accounts._blob_account):
        kept.cache_clear()
