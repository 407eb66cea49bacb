"""`topn check`: each thing that is wrong with an Azure is one line that says what to do; nothing is created."""

from __future__ import annotations

import socket
from datetime import timedelta
from pathlib import Path

import pytest
from azure.batch import models
from identity_support import make_authority
from tests_support import wait_until
from topn_support import Topn

from localbatch import LocalAzure, LocalBatch
from tasks.azure.accounts import batch_account


@pytest.fixture
def check():
    """Run the command with the environment of the test; returns its exit status, and the lines that do not say "ok"."""

    def run(*arguments):
        done = Topn()("check", *arguments)
        lines = done.stdout.splitlines()
        assert lines
        assert "Traceback" not in done.stdout + done.stderr
        assert all(line.endswith(".") for line in lines)
        return done.returncode, [line for line in lines if not line.startswith("ok:")]

    return run


@pytest.fixture
def batch_server(azure_settings, monkeypatch, tmp_path):
    """Start a Batch account with options, and use it beside the storage account of all tests."""
    started = []

    def start(**options):
        server = LocalBatch(state_dir=tmp_path / f"batch-{len(started)}", pace="instant", **options)
        started.append(server.__enter__())
        monkeypatch.setenv("TOPN_BATCH_ENDPOINT", server.endpoint)
        return server

    yield start
    for server in started:
        server.__exit__(None, None, None)


def the_one(lines, *words):
    """The only line of these that failed; it has all these words."""
    [line] = lines
    assert line.startswith("failed: ")
    for word in words:
        assert word in line
    return line


def test_where_all_is_fine_the_status_is_0_and_nothing_is_created(check, local_azure, azure_settings):
    seen = len(local_azure.batch.requests)
    assert check() == (0, [])
    assert {record.method for record in list(local_azure.batch.requests)[seen:]} <= {"GET", "DELETE"}
    assert [
        record.status for record in list(local_azure.batch.requests)[seen:] if record.method == "DELETE"
    ] == [404, 404]  # fmt: skip


def test_by_an_identity_it_says_whose(identity_settings):
    done = Topn()("check")
    assert done.returncode == 0
    assert "accepts the identity (object 5f1b6b5e-0000-0000-0000-0f2a4f6c1f11 of tenant 72f988bf-" in done.stdout


def test_without_configuration_check_starts_a_local_azure(tmp_path):
    done = Topn(HOME=str(tmp_path), TOPN_STATE=str(tmp_path / "state"))("check")
    assert (done.returncode, "failed" in done.stdout) == (0, False)
    assert done.stderr.splitlines() == [
        "No Azure is configured: starting a local one for this.",
        "A run can begin; nothing was created.",
    ]


@pytest.mark.parametrize("half", ["BATCH", "STORAGE"])
def test_nothing_that_listens(check, azure_settings, monkeypatch, half):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv(f"TOPN_{half}_ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        status, lines = check()
    assert status == 2
    the_one(lines, "nothing listens at its address", f"Check TOPN_{half}_ENDPOINT")


def test_a_host_that_is_not_known(check, azure_settings, monkeypatch):
    monkeypatch.setenv("TOPN_BATCH_ENDPOINT", "http://nowhere.invalid")
    _, lines = check()
    the_one(lines, "the name of its host is not known", "TOPN_BATCH_ENDPOINT")


@pytest.mark.parametrize("half", ["BATCH", "STORAGE"])
def test_a_wrong_key(check, azure_settings, monkeypatch, half):
    monkeypatch.setenv(f"TOPN_{half}_KEY", "c2VudGluZWw=")
    status, lines = check()
    assert status == 2
    assert "c2VudGluZWw" not in the_one(lines, f"TOPN_{half}_KEY")


def test_a_wrong_tenant(check, identity_settings, managed_identity):
    managed_identity.claims = {"tid": "00000000-0000-0000-0000-000000000000"}
    status, lines = check()
    assert status == 2
    # Azurite takes tokens of any tenant.
    the_one(lines, "The token is of the tenant '00000000", "AZURE_TENANT_ID")


def test_no_identity_at_all(check, identity_settings, managed_identity, monkeypatch):
    for name in managed_identity.environment:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", "/nowhere")
    # No search for the endpoint that a virtual machine in Azure has.
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "dev")
    status, lines = check()
    assert (status, len(lines)) == (2, 2)
    assert all("no identity was found" in line and "`az login`" in line for line in lines)


def test_no_right_to_change_anything_in_the_batch_account(check, azure_settings, azure_faults):
    azure_faults.add("answer", operation="delete_*", status=403, code="PermissionDenied", message="Not allowed")
    status, lines = check()
    assert status == 2
    the_one(lines, "delete a job", "PermissionDenied", 'the role "Azure Batch Data Contributor"')


def test_no_right_to_write_blobs(check, monkeypatch, tmp_path):
    with LocalAzure(state_dir=tmp_path / "azure", pace="instant", storage_faults=True) as azure:
        for name, value in azure.environment.items():
            monkeypatch.setenv(name, value)
        azure.storage_faults.add("answer", operation="put_blob", status=403, code="AuthorizationPermissionMismatch")
        status, lines = check()
    assert status == 2
    the_one(lines, "write a blob", "AuthorizationPermissionMismatch", 'the role "Storage Blob Data Contributor"')


def test_no_quota(check, batch_server):
    batch_server(core_quota=0)
    client = batch_account()._client
    client.create_pool(models.BatchPoolCreateOptions(id="mine", vm_size="standard_d2s_v3", target_dedicated_nodes=1))
    wait_until(lambda: client.get_pool("mine").resize_errors, "the resize failed")
    status, lines = check()
    assert status == 2
    the_one(lines, "Pool `mine` cannot get its nodes", "AccountCoreQuotaReached", "in the portal")


def test_a_retired_image(check, azure_settings):
    Path("pool.yaml").write_text("image_family: batch.node.ubuntu 20.04\n")
    status, lines = check("--pool", "pool.yaml")
    assert status == 2
    the_one(lines, "batch.node.ubuntu 20.04", "the last on 2025-04-23", "image_family")


def test_an_expired_certificate(check, batch_server, monkeypatch, tmp_path):
    authority, certificate = make_authority(tmp_path, (timedelta(days=-2), timedelta(days=-1)))
    batch_server(certificate=certificate)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority))
    status, lines = check()
    assert status == 2
    the_one(lines, "certificate has expired", "Renew the certificate")


def test_a_certificate_of_an_authority_that_is_not_known(check, batch_server, authority):
    batch_server(certificate=authority[1])
    status, lines = check()
    assert status == 2
    the_one(lines, "its certificate is refused", "REQUESTS_CA_BUNDLE")


def test_a_clock_that_is_off_by_an_hour(check, batch_server):
    batch_server().advance(timedelta(hours=1))
    status, lines = check()
    assert status == 2
    the_one(lines, "This machine's clock is 60 minutes behind that of Batch", "NTP")


def test_pool_that_does_not_exist_is_named(check, azure_settings):
    status, lines = check("--pool-id", "nowhere")
    assert status == 2
    the_one(lines, "Pool `nowhere` does not exist")
