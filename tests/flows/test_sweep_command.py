"""`topn sweep`: what a killed run left behind is found and deleted."""

from __future__ import annotations

import signal
from pathlib import Path

from tests_support import wait_until


def test_what_a_killed_run_left_is_named_and_then_deleted(topn, local_azure, nothing_left):
    Path("a.txt").write_text("one two")
    seen = len(local_azure.batch.requests)
    process = topn.start("run", "a.txt")
    wait_until(
        lambda: any(
            (record.method, record.path) == ("POST", "/jobs") for record in list(local_azure.batch.requests)[seen:]
        ),
        "the job was created",
        while_running=process,
    )
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)

    # Its Prefect server still takes it for running, and its deadline is an hour away: it is not known to be dead.
    alive = topn("sweep")
    assert (alive.returncode, alive.stdout) == (0, "")

    mark_as_crashed(topn.environment["PREFECT_API_URL"])
    named = topn("sweep", "--dry-run")
    assert named.returncode == 0, named.stderr
    assert len(named.stdout.splitlines()) == 5
    assert all(line.startswith("left behind: ") for line in named.stdout.splitlines())
    recent = topn("sweep", "--older-than", "1h")
    assert recent.stdout == ""
    deleted = topn("sweep")
    assert sorted(line.split(": ")[1] for line in deleted.stdout.splitlines()) == sorted(
        line.split(": ")[1] for line in named.stdout.splitlines()
    )
    nothing_left()


def test_a_sweep_without_an_azure_is_refused(topn_alone):
    done = topn_alone("sweep")
    assert done.returncode == 2
    assert "No Azure is configured" in done.stderr


def test_a_time_that_is_none_is_refused(topn_alone):
    done = topn_alone("sweep", "--older-than", "soon")
    assert done.returncode == 2
    assert "'soon' is not a time such as 30m, 2h or 1d" in done.stderr


def mark_as_crashed(api_url):
    """Say on the Prefect server that its running flow runs have crashed, as a user or an automation does."""
    from prefect import get_client  # noqa: PLC0415
    from prefect.client.schemas.filters import FlowRunFilter  # noqa: PLC0415
    from prefect.settings import PREFECT_API_URL, temporary_settings  # noqa: PLC0415
    from prefect.states import Crashed  # noqa: PLC0415

    with temporary_settings({PREFECT_API_URL: api_url}), get_client(sync_client=True) as client:
        running = client.read_flow_runs(flow_run_filter=FlowRunFilter(state={"type": {"any_": ["RUNNING"]}}))
        assert running
        for flow_run in running:
            client.set_flow_run_state(flow_run.id, Crashed(), force=True)
