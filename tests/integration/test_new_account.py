"""Runs on a Batch account as a new subscription gets it: small quotas, late samples and no spot nodes."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from localbatch import LocalBatch

FAMILY = "standardDASv5Family"
SUBNET = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/v/subnets/nodes"


@pytest.fixture
def account(azure_settings, topn, monkeypatch, tmp_path):
    """Return a function that starts a Batch account with quotas, which `topn` uses with the shared storage account."""
    started = []

    def start(**quotas):
        server = LocalBatch(
            state_dir=tmp_path / f"batch-{len(started)}",
            pace="instant",
            key=azure_settings.key,
            sample_delay_seconds=60,
            low_priority_core_quota=0,
            family_core_quotas=quotas,
        )
        started.append(server.__enter__())
        monkeypatch.setitem(topn.environment, "TOPN_BATCH_ENDPOINT", server.endpoint)
        monkeypatch.setenv("TOPN_BATCH_ENDPOINT", server.endpoint)
        return server

    yield start
    for server in started:
        server.__exit__(None, None, None)


@pytest.fixture
def texts():
    names = ["a.txt", "b.txt", "c.txt"]
    for name in names:
        Path(name).write_text(f"one two two {uuid.uuid4()}")
    return names


def test_run_works_with_small_quotas(account, topn, texts):
    # The family has fewer cores than the nodes of a run.
    account(**{FAMILY: 2})
    found = topn.json(*texts)
    assert [file["status"] for file in found["files"]] == ["counted"] * len(texts)


def test_missing_quota_is_named(account, topn, texts, assert_nothing_left):
    account(**{FAMILY: 0})
    done = topn("run", *texts)
    assert done.returncode == 1
    assert "has no nodes: The specified account has reached VM series core quota" in done.stderr
    assert "[AccountVMSeriesCoreQuotaReached]" in done.stderr
    assert_nothing_left()


@pytest.mark.parametrize("command", ["plan", "check", "run"])
def test_key_for_own_network_is_refused_first(account, topn, texts, command):
    server = account(**{FAMILY: 2})
    Path("pool.yaml").write_text(f"subnet_id: {SUBNET}")
    done = topn(command, "--pool", "pool.yaml", *(texts if command != "check" else ()))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "Batch does not accept an account key for a pool with `subnet_id`. Unset TOPN_BATCH_KEY to use an identity."
    )
    assert {record.method for record in server.requests} <= {"GET"}
