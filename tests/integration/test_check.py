"""`topn check` reports each problem with an Azure in one line with advice, and creates nothing."""

from __future__ import annotations

import json
import socket
from datetime import timedelta
from pathlib import Path

import pytest
from azure.batch import models
from identity_support import make_authority
from tests_support import wait_until, watch_requests
from topn_support import Topn

from localbatch import LocalAzure, LocalBatch
from localbatch.testing import MACHINE
from tasks.azure.accounts import batch_account


@pytest.fixture
def check():
    """Return a function that runs the command and returns its exit code and the lines about problems."""

    def run(*arguments):
        done = Topn()("check", *arguments)
        lines = done.stdout.splitlines()
        assert lines
        assert "Traceback" not in done.stdout + done.stderr
        assert all(line.endswith(".") for line in lines)
        assert lines.pop().startswith("note:   Not checked: the quotas")
        return done.returncode, [line for line in lines if not line.startswith("ok:")]

    return run


@pytest.fixture
def batch_server(azure_settings, monkeypatch, tmp_path):
    """Return a function that starts a Batch account with options and uses it with the shared storage account."""
    started = []

    def start(**options):
        server = LocalBatch(
            state_dir=tmp_path / f"batch-{len(started)}", pace="instant", key=azure_settings.key, **options
        )
        started.append(server.__enter__())
        monkeypatch.setenv("TOPN_BATCH_ENDPOINT", server.endpoint)
        return server

    yield start
    for server in started:
        server.__exit__(None, None, None)


def only_failure(lines, *words):
    """Return the only line, after checking that it reports a failure and contains all `words`."""
    [line] = lines
    assert line.startswith("failed: ")
    for word in words:
        assert word in line
    return line


def test_healthy_azure_exits_0_and_creates_nothing(check, local_azure, azure_settings):
    requests = watch_requests(local_azure.batch)
    assert check() == (0, [])
    assert {record.method for record in requests()} <= {"GET", "DELETE"}
    assert [
        record.status for record in requests() if record.method == "DELETE"
    ] == [404, 404]  # fmt: skip


def test_check_reports_identity(identity_settings):
    done = Topn()("check")
    assert done.returncode == 0
    assert "accepts the identity (object 5f1b6b5e-0000-0000-0000-0f2a4f6c1f11 of tenant 72f988bf-" in done.stdout


def test_without_configuration_check_starts_a_local_azure(tmp_path):
    done = Topn(HOME=str(tmp_path), TOPN_STATE=str(tmp_path / "state"))("check")
    assert (done.returncode, "failed" in done.stdout) == (0, False)
    assert done.stderr.splitlines() == [
        "No Azure is configured: starting a local one for this check.",
        "A run can start. Nothing was created.",
    ]


@pytest.mark.parametrize("half", ["BATCH", "STORAGE"])
def test_unreachable_endpoint_is_reported(check, azure_settings, monkeypatch, half):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv(f"TOPN_{half}_ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        status, lines = check()
    assert status == 2
    only_failure(lines, "nothing listens at its address", f"Check TOPN_{half}_ENDPOINT")


def test_unknown_host_is_reported(check, azure_settings, monkeypatch):
    monkeypatch.setenv("TOPN_BATCH_ENDPOINT", "http://nowhere.invalid")
    _, lines = check()
    only_failure(lines, "its host name cannot be resolved", "TOPN_BATCH_ENDPOINT")


@pytest.mark.parametrize("half", ["BATCH", "STORAGE"])
def test_wrong_key_is_reported(check, azure_settings, monkeypatch, half):
    monkeypatch.setenv(f"TOPN_{half}_KEY", "c2VudGluZWw=")
    status, lines = check()
    assert status == 2
    assert "c2VudGluZWw" not in only_failure(lines, f"TOPN_{half}_KEY")


def test_wrong_tenant_is_reported(check, identity_settings, managed_identity):
    managed_identity.claims = {"tid": "00000000-0000-0000-0000-000000000000"}
    status, lines = check()
    assert status == 2
    # Azurite accepts tokens of any tenant.
    only_failure(lines, "The tenant of the token is '00000000", "AZURE_TENANT_ID")


def test_missing_identity_is_reported(check, identity_settings, managed_identity, monkeypatch):
    for name in managed_identity.environment:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", "/nowhere")
    # Skip the search for the token endpoint of an Azure virtual machine.
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "dev")
    status, lines = check()
    assert (status, len(lines)) == (2, 2)
    assert all("no identity was found" in line and "`az login`" in line for line in lines)


def test_missing_batch_role_is_reported(check, azure_settings, azure_faults):
    azure_faults.add("answer", operation="delete_*", status=403, code="PermissionDenied", message="Not allowed")
    status, lines = check()
    assert status == 2
    only_failure(lines, "delete a job", "PermissionDenied", 'the role "Azure Batch Data Contributor"')


def test_missing_storage_role_is_reported(check, monkeypatch, tmp_path):
    with LocalAzure(state_dir=tmp_path / "azure", pace="instant", storage_faults=True) as azure:
        for name, value in azure.environment.items():
            monkeypatch.setenv(name, value)
        azure.storage_faults.add("answer", operation="put_blob", status=403, code="AuthorizationPermissionMismatch")
        status, lines = check()
    assert status == 2
    only_failure(lines, "write a blob", "AuthorizationPermissionMismatch", 'the role "Storage Blob Data Contributor"')


def test_missing_quota_is_reported(check, batch_server):
    batch_server(core_quota=0)
    client = batch_account()._client
    client.create_pool(models.BatchPoolCreateOptions(id="mine", **MACHINE, target_dedicated_nodes=1))
    wait_until(lambda: client.get_pool("mine").resize_errors, "the resize failed")
    status, lines = check()
    assert status == 2
    only_failure(lines, "Pool `mine` cannot get its nodes", "AccountCoreQuotaReached", "in the portal")


def test_retired_image_is_reported(check, azure_settings):
    Path("pool.yaml").write_text("image_family: batch.node.ubuntu 20.04\n")
    status, lines = check("--pool", "pool.yaml")
    assert status == 2
    only_failure(lines, "batch.node.ubuntu 20.04", "the last on 2025-04-23", "image_family")


def test_expired_certificate_is_reported(check, batch_server, monkeypatch, tmp_path):
    authority, certificate = make_authority(tmp_path, (timedelta(days=-2), timedelta(days=-1)))
    batch_server(certificate=certificate)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority))
    status, lines = check()
    assert status == 2
    only_failure(lines, "certificate has expired", "Renew the certificate")


def test_untrusted_certificate_is_reported(check, batch_server, authority):
    batch_server(certificate=authority[1])
    status, lines = check()
    assert status == 2
    only_failure(lines, "its certificate was rejected", "REQUESTS_CA_BUNDLE")


def test_clock_skew_is_reported(check, batch_server):
    batch_server().advance(timedelta(hours=1))
    status, lines = check()
    assert status == 2
    only_failure(lines, "This machine's clock is 60 minutes behind that of Batch", "NTP")


def test_missing_pool_is_named(check, azure_settings):
    status, lines = check("--pool-id", "nowhere")
    assert status == 2
    only_failure(lines, "Pool `nowhere` does not exist")


def test_check_prints_json_for_named_size(azure_settings):
    done = Topn()("check", "--json", "--nodes", "8", "--vm-size", "standard_d4s_v3")
    found = json.loads(done.stdout)
    assert (done.returncode, found["failed"]) == (0, 0)
    messages = [finding["message"] for finding in found["findings"]]
    assert any("up to 32 cores of the VM family standardDSv3Family" in message for message in messages)
    assert any("fits the VM size standard_d4s_v3" in message for message in messages)
