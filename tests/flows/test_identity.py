"""A run without any key: over https, with the certificate of a private authority, by the identity of this machine."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from identity_support import BATCH, STORAGE


@pytest.fixture
def topn_by_identity(topn, identity_environment):
    servers = {name: topn.environment[name] for name in ("PREFECT_API_URL", "TOPN_STATE")}
    topn.environment = identity_environment | servers
    return topn


def test_a_whole_run_needs_no_key_and_leaves_nothing(topn_by_identity, secured_azure, managed_identity):

    Path("a.txt").write_text("one two two")
    Path("b.txt").write_text("one")

    found = topn_by_identity.json("a.txt", "b.txt", "--files-per-task", "2")

    assert [file["top"] for file in found["files"]] == [[["two", 2], ["one", 1]], [["one", 1]]]
    # Each token was for one of the two services, and was used again.
    assert sorted(managed_identity.resources) == sorted([BATCH, STORAGE])
    requests = [record for record in secured_azure.batch.requests if record.method == "DELETE"]
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
def test_a_token_that_is_refused_is_one_sentence_and_status_2(topn_by_identity, managed_identity, claims, reason):
    Path("a.txt").write_text("one two two")
    managed_identity.claims = claims

    done = topn_by_identity("run", "a.txt")

    assert (done.returncode, done.stdout) == (2, "")
    [sentence] = done.stderr.splitlines()
    assert reason in sentence
    assert "[AuthenticationFailed]" in sentence
    assert "AZURE_TENANT_ID" in sentence


def test_where_keys_are_off_a_key_ends_the_run_before_it_begins(topn_by_identity):
    Path("a.txt").write_text("one two two")
    done = topn_by_identity("run", "a.txt", TOPN_BATCH_KEY="c2VudGluZWw=")
    assert done.returncode == 2
    assert "TOPN_ALLOW_KEYS is false" in done.stderr
    assert "c2VudGluZWw" not in done.stderr
