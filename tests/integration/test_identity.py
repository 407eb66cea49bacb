"""Runs without keys: HTTPS, the certificate of a private authority, and a managed identity."""

from __future__ import annotations

import json
import time
import uuid
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from identity_support import BATCH, STORAGE
from tests_support import new_container

from localbatch.testing import MACHINE_JSON
from tasks.azure.accounts import batch_account, blob_account
from tasks.model.naming import is_archive_task


@pytest.fixture
def topn_by_identity(topn, identity_settings):
    """`topn` with the variables of the managed identity and without keys."""
    topn.environment = {
        name: value for name, value in topn.environment.items() if not name.startswith("TOPN_") or name == "TOPN_STATE"
    }
    return topn


def test_run_needs_no_key_and_leaves_nothing(topn_by_identity, secured_azure, managed_identity):
    Path("a.txt").write_text("one two two")
    Path("b.txt").write_text("one")
    began_at = datetime.now(timezone.utc)

    found = topn_by_identity.json("a.txt", "b.txt", "--files-per-task", "2")

    assert [file["top"] for file in found["files"]] == [[["two", 2], ["one", 1]], [["one", 1]]]
    # One token per service was requested and reused.
    assert sorted(managed_identity.resources) == sorted([BATCH, STORAGE])
    # The list also has requests of other tests.
    requests = [
        record
        for record in list(secured_azure.batch.requests)
        if record.method == "DELETE" and record.started_at >= began_at
    ]
    assert {record.path.split("/")[1] for record in requests} == {"jobs", "pools"}
    assert {record.status for record in requests} == {202}


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"aud": "https://graph.microsoft.com"}, "audience"),
        ({"exp": 1}, "expired"),
        ({"nbf": int(time.time()) + 3600}, "not valid yet"),
        ({"tid": "00000000-0000-0000-0000-000000000000"}, "tenant"),
    ],
    ids=["audience", "expired", "early", "tenant"],
)
def test_rejected_token_prints_one_sentence_and_exits_2(topn_by_identity, managed_identity, claims, reason):
    Path("a.txt").write_text("one two two")
    managed_identity.claims = claims

    done = topn_by_identity("run", "a.txt")

    assert (done.returncode, done.stdout) == (2, "")
    [sentence] = done.stderr.splitlines()
    assert reason in sentence
    assert "[AuthenticationFailed]" in sentence
    assert "AZURE_TENANT_ID" in sentence


def test_disallowed_key_stops_run_before_start(topn_by_identity):
    Path("a.txt").write_text("one two two")
    done = topn_by_identity("run", "a.txt", TOPN_BATCH_KEY="c2VudGluZWw=")
    assert done.returncode == 2
    assert "TOPN_ALLOW_KEYS is false" in done.stderr
    assert "c2VudGluZWw" not in done.stderr


IDENTITIES = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities"


@pytest.fixture
def pool_with_identity(identity_settings):
    """Return a function that creates a pool with managed identities, as the portal can and the SDK cannot."""
    pool_ids = []

    def make(*names):
        account = batch_account()
        pool = {"id": f"mine-{uuid.uuid4().hex}", **MACHINE_JSON, "targetDedicatedNodes": 1}
        identities = [{"resourceId": f"{IDENTITIES}/{name}"} for name in names]
        pool["identity"] = {"type": "UserAssigned", "userAssignedIdentities": identities}
        account._client.create_pool(pool)
        pool_ids.append(pool["id"])
        return pool["id"]

    yield make
    batch_account().delete_jobs_and_pools([], pool_ids, 10)


def test_nodes_with_identity_get_no_signature(topn_by_identity, pool_with_identity):
    pool_id = pool_with_identity("reader", "other")
    Path("a.txt").write_text("one two two")
    Path("pool.json").write_text('{"node_identity": "Reader"}')

    found = topn_by_identity.json("a.txt", "--pool-id", pool_id, "--pool", "pool.json", "--keep-job")

    assert found["files"][0]["top"] == [["two", 2], ["one", 1]]
    account = batch_account()
    job = account._client.get_job(found["run"]).as_dict()
    [task] = [task.as_dict() for task in account._client.list_tasks(found["run"])]
    account.delete_jobs_and_pools([found["run"]], [], 10)
    assert "sig=" not in json.dumps([job, task])
    files = task["resourceFiles"] + job["jobPreparationTask"]["resourceFiles"]
    places = [file["destination"]["container"] for file in task["outputFiles"]]
    assert files
    assert places
    for each in files + places:
        assert each["identityReference"] == {"resourceId": f"{IDENTITIES}/reader"}


@pytest.fixture
def texts(identity_settings):
    """The URL of a container with two texts."""
    account = blob_account()
    with new_container(account, "texts") as name:
        for number in (1, 2):
            account.upload_bytes(name, f"{number} #%.txt", b"one two two")
        yield f"{account.endpoint}/{name}"


@pytest.mark.parametrize("files_per_task", ["1", "2"])
def test_blobs_need_no_signature_with_identity_of_nodes(topn_by_identity, pool_with_identity, texts, files_per_task):
    pool_id = pool_with_identity("reader")
    found = topn_by_identity.json(texts, "--pool-id", pool_id, "--keep-job", "--files-per-task", files_per_task)
    assert [file["top"] for file in found["files"]] == [[["two", 2], ["one", 1]]] * 2
    account = batch_account()
    tasks = [task.as_dict() for task in account._client.list_tasks(found["run"])]
    account.delete_jobs_and_pools([found["run"]], [], 10)
    assert "sig=" not in json.dumps(tasks)
    blobs = [file for task in tasks for file in task["resourceFiles"] if file["httpUrl"].startswith(texts)]
    assert sorted(file["httpUrl"] for file in blobs) == [f"{texts}/{number}%20%23%25.txt" for number in (1, 2)]
    assert {file["identityReference"]["resourceId"] for file in blobs} == {f"{IDENTITIES}/reader"}


def test_other_account_is_read_by_delegated_signature(topn_by_identity, texts):
    # By another name, the account is another one.
    other = texts.replace("127.0.0.1", "localhost")
    found = topn_by_identity.json(other, "--keep-job", "--files-per-task", "2")
    assert [file["top"] for file in found["files"]] == [[["two", 2], ["one", 1]]] * 2
    account = batch_account()
    found_tasks = [task.as_dict() for task in account._client.list_tasks(found["run"])]
    [task] = [task for task in found_tasks if is_archive_task(task["id"])]
    account.delete_jobs_and_pools([found["run"]], [], 10)
    signatures = [parse_qs(urlsplit(file["httpUrl"]).query) for file in task["resourceFiles"][1:]]
    # Each is for one blob, and by a delegated key.
    assert [(query["sr"], query["sp"], "skoid" in query) for query in signatures] == [(["b"], ["r"], True)] * 2


def test_several_identities_require_a_choice(topn_by_identity, pool_with_identity):
    only = topn_by_identity("check", "--pool-id", pool_with_identity("reader"))
    assert "read and write blobs as `reader`." in only.stdout

    pool_id = pool_with_identity("reader", "other")
    unnamed = topn_by_identity("check", "--pool-id", pool_id)
    assert unnamed.returncode == 2
    assert f"Pool `{pool_id}` has several identities (reader, other). Set `node_identity`." in unnamed.stdout

    Path("pool.json").write_text('{"node_identity": "Reader"}')
    named = topn_by_identity("check", "--pool-id", pool_id, "--pool", "pool.json")
    assert (named.returncode, "read and write blobs as `reader`." in named.stdout) == (0, True)
    Path("pool.json").write_text('{"node_identity": "missing"}')
    refused = topn_by_identity("check", "--pool-id", pool_id, "--pool", "pool.json")
    assert "has no identity `missing`. Set `node_identity` to one of: reader, other." in refused.stdout
    Path("pool.json").write_text('{"node_identity": "none"}')
    signed = topn_by_identity("check", "--pool-id", pool_id, "--pool", "pool.json")
    assert "read and write blobs with signed URLs." in signed.stdout
