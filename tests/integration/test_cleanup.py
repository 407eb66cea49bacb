"""A cleanup deletes what it can, and reports what remains everywhere that the user looks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from markdown_support import Shown
from tests_support import resources_of_runs, send_to_prefect, wait_until

pytestmark = pytest.mark.xdist_group("failing_azure")

REFUSED = {"fault": "answer", "status": 403, "code": "AuthorizationFailure"}
HOW_TO_REMOVE = "Remove them later with `topn sweep`."


@pytest.fixture
def refuse(failing_azure):
    """Return a function that makes a service refuse an operation."""
    scripts = {"batch": failing_azure.faults, "storage": failing_azure.storage_faults}
    yield lambda service, operation: scripts[service].add(**REFUSED, operation=operation, times=1000)
    for script in scripts.values():
        script.clear()


@pytest.mark.parametrize(
    ("service", "operation", "kind", "count"),
    [
        ("batch", "delete_pool", "pool", 1),
        ("batch", "delete_job", "job", 1),
        ("storage", "delete_container", "container", 3),
    ],
)
def test_refused_deletion_is_reported_everywhere(
    topn, failing_azure, read_run, refuse, prefect_api, service, operation, kind, count
):
    Path("a.txt").write_text(f"{operation} word")
    refuse(service, operation)
    environment = failing_azure.environment

    done = topn("run", "a.txt", **environment)

    with topn.environ(**environment):
        remaining = resources_of_runs()
    assert {name.partition(" ")[0] for name in remaining} == {kind}
    assert len(remaining) == count
    assert done.returncode == 1
    assert "1 counted" in done.stdout
    last_lines = done.stderr.splitlines()[-count - 1 :]
    assert last_lines[-1] == HOW_TO_REMOVE
    for name, line in zip(sorted(remaining), sorted(last_lines[:-1]), strict=True):
        assert line.startswith(f"Could not delete {name}: ")
        assert "AuthorizationFailure" in line
    flow_run, artifacts = read_run(re.search(r"topn-\w+-\d+", done.stdout)[0])
    assert flow_run["state"]["type"] == "COMPLETED"
    for name in remaining:
        assert name in flow_run["state"]["message"]
        assert name in Shown(artifacts["topn-cleanup"]["data"]).text
    assert flow_run["state"]["message"].endswith(HOW_TO_REMOVE)
    query = {
        "filter": {"event": {"name": ["topn.cleanup.incomplete"]}, "resource": {"id": [f"topn.run.{flow_run['id']}"]}}
    }
    wait_until(lambda: send_to_prefect(prefect_api, "/events/filter", query)["total"] == 1, "the event")

    refused = topn("sweep", **environment)
    assert refused.returncode == 1
    assert all(f"Could not delete {name}: " in refused.stderr for name in remaining)

    failing_azure.faults.clear()
    failing_azure.storage_faults.clear()
    swept = topn("sweep", **environment)
    assert (swept.returncode, sorted(swept.stdout.splitlines())) == (
        0,
        sorted(f"deleted: {name}" for name in remaining),
    )
    with topn.environ(**environment):
        wait_until(lambda: resources_of_runs() == set(), "all resources of the run to be deleted")
