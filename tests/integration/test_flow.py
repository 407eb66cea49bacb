"""The flow, called as a function."""

from __future__ import annotations

import uuid
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest
from markdown_support import Shown
from prefect.states import Cancelled, Cancelling, Crashed
from tests_support import send_to_prefect

from tasks.errors import ConfigurationError, TopnError
from tasks.report.model import FilesFailedError


@pytest.fixture
def run_flow(topn):
    """Return a function that calls the flow with parameters."""

    def run(**parameters):
        from flows.topn import topn as flow  # noqa: PLC0415 - takes seconds

        with topn.environ():
            return flow(**parameters)

    return run


@pytest.fixture
def run_deployed(topn, prefect_api):
    """Return a function that runs a flow run as the process of a worker does, and returns the flow run."""
    from prefect import get_client  # noqa: PLC0415 - takes seconds
    from prefect.flow_engine import run_flow  # noqa: PLC0415 - as above
    from prefect.logging.loggers import flow_run_logger  # noqa: PLC0415 - as above

    from flows.topn import topn as flow  # noqa: PLC0415 - as above

    def run(flow=flow, name=None, variables=(), **parameters):
        with topn.environ(PREFECT_LOGGING_TO_API_ENABLED="true", **dict(variables)):
            with get_client(sync_client=True) as client:
                created = client.create_flow_run(flow, name=name, parameters=parameters)
            with suppress(TopnError, ZeroDivisionError):
                run_flow(flow, flow_run=created, error_logger=flow_run_logger(created))
        return send_to_prefect(prefect_api, f"/flow_runs/{created.id}")

    return run


def artifacts_of(prefect_api, flow_run):
    """Return data and description of the artifacts of a flow run, by key."""
    query = {"flow_runs": {"id": {"any_": [flow_run["id"]]}}}
    found = send_to_prefect(prefect_api, "/artifacts/filter", query)
    return {artifact["key"]: (artifact["data"], artifact["description"]) for artifact in found}


def test_early_failure_explains_itself(run_deployed, prefect_api, read_log, assert_nothing_left):
    flow_run = run_deployed(inputs=["missing.txt"])

    message = "missing.txt does not exist: name a file, a folder, or a pattern that matches a file."
    assert (flow_run["state"]["name"], flow_run["state"]["message"]) == ("Failed", message)
    assert flow_run["name"] == f"failed: {message}"
    [(key, (text, description))] = artifacts_of(prefect_api, flow_run).items()
    assert key == "topn-summary"
    assert Shown(text).text.startswith(f"Failed before the report\n{message}\nCorrect the cause and run again.")
    assert Shown(description).text.strip() == f"failed: {message}"
    log = read_log(flow_run["id"])
    assert log.count(message) == 1
    assert log[-1] == f"Finished in state Failed({message!r})"
    assert not [line for line in log if "Traceback" in line or "exception" in line]
    assert_nothing_left()


def test_invalid_option_fails_by_its_message(run_deployed, azure_settings):
    """It is found in the body of the flow, before the first step."""
    flow_run = run_deployed(inputs=["missing.txt"], encoding="latin-99")
    assert flow_run["state"]["message"].startswith("`latin-99` is not a text encoding of Python.")


def test_unexpected_error_keeps_its_traceback(run_deployed, prefect_api, read_log, monkeypatch, assert_nothing_left):
    def fail(*_):
        raise ZeroDivisionError("a mistake")

    monkeypatch.setattr("tasks.steps.provision.ensure_containers", fail)
    Path("a.txt").write_text(f"{uuid.uuid4()}")
    flow_run = run_deployed(inputs=["a.txt"])
    assert flow_run["name"] == "failed: ZeroDivisionError: a mistake"
    assert artifacts_of(prefect_api, flow_run)["topn-summary"][1] == "failed\\: ZeroDivisionError\\: a mistake"
    log = "\n".join(read_log(flow_run["id"]))
    assert "in create_containers" in log
    assert "ZeroDivisionError: a mistake" in log
    assert_nothing_left()


@pytest.mark.parametrize(
    ("state", "name"),
    [
        (Cancelling(message="Flow run was cancelled."), "cancelled"),
        (Cancelled(message="`make up` was stopped."), "cancelled: `make up` was stopped."),
        (Crashed(message="The process died."), "crashed: The process died."),
    ],
    ids=["cancelling", "cancelled", "crashed"],
)
def test_hook_in_new_process_names_run(topn, prefect_api, azure_settings, state, name):
    """A worker calls the hook if the process of the flow has died. Nothing else of the run is known there."""
    from prefect import get_client  # noqa: PLC0415 - takes seconds

    from flows.topn import topn as flow  # noqa: PLC0415 - as above

    with topn.environ(), get_client(sync_client=True) as client:
        created = client.create_flow_run(flow, name="working on data/*.txt", state=state)
        for hook in flow.on_crashed_hooks:
            hook(flow, created, state)
    flow_run = send_to_prefect(prefect_api, f"/flow_runs/{created.id}")
    assert flow_run["name"] == name
    text, description = artifacts_of(prefect_api, flow_run)["topn-summary"]
    assert Shown(description).text.strip() == name
    assert "Run again: only what was not collected is processed again." in Shown(text).text


def test_name_of_user_stays(run_deployed, prefect_api):
    Path("a.txt").write_text(f"{uuid.uuid4()}")
    Path("bad.txt").write_bytes(b"\xff")
    for inputs in (["missing.txt"], ["a.txt", "bad.txt"]):
        flow_run = run_deployed(name="March invoices", inputs=inputs)
        assert (flow_run["name"], flow_run["state"]["name"]) == ("March invoices", "Failed")
        assert "topn-summary" in artifacts_of(prefect_api, flow_run)


def test_good_run_clears_failures(run_deployed, prefect_api):
    """Only the first good run after a failure."""
    Path("a.txt").write_text(f"{uuid.uuid4()}")
    Path("bad.txt").write_bytes(b"\xff")
    flow = named_flow(f"cleared-{uuid.uuid4().hex[:8]}")
    key = f"{flow.name}-failures"
    found = [
        artifacts_of(prefect_api, run_deployed(flow, inputs=inputs)).get(key)
        for inputs in (["a.txt"], ["a.txt", "bad.txt"], ["a.txt"], ["a.txt"])
    ]
    assert found[1][0].startswith("# 1 of 2 files failed")
    assert [found[0], *found[2:]] == [None, ("# No file failed.", "No file failed."), None]


def named_flow(name):
    """Return a flow with its own artifact keys."""
    from flows.topn import run_workload, workload_flow  # noqa: PLC0415 - takes seconds
    from tasks.workload.word_counts import word_count_workload  # noqa: PLC0415 - as above

    @workload_flow(name)
    def flow(inputs: list[str]):
        return run_workload(replace(word_count_workload(3, ignore_case=False), name=name), inputs)

    return flow


def test_failed_run_is_retried_then_cleaned_up(topn, azure_settings, assert_nothing_left):
    """Prefect's own retries can be set in the settings, on the flow or in a call."""
    from flows.topn import topn as flow  # noqa: PLC0415 - takes seconds
    from tasks.progress import listen  # noqa: PLC0415 - as above

    Path("good.txt").write_text(f"one two two {uuid.uuid4()}")
    Path("bad.txt").write_bytes(b"\xff")
    started = []
    with topn.environ(), listen(lambda progress: started.append(progress.flow_run_id)):
        retried = flow.with_options(retries=1, retry_delay_seconds=0)
        state = retried(inputs=["good.txt", "bad.txt"], return_state=True)

    assert len(list(filter(None, started))) == 2
    assert state.is_failed()
    report = state.result(raise_on_failure=False).report
    # The second attempt has the results of the first.
    assert [file.status for file in report.files] == ["unchanged", "failed"]
    assert_nothing_left()


def test_existing_pool_is_used_unchanged(run_flow, azure_settings, assert_nothing_left):
    """The call raises because one file failed; the exception has the report."""
    from tasks.azure.accounts import batch_account  # noqa: PLC0415 - after the environment is set
    from tasks.azure.values import PoolSpec, StartTask  # noqa: PLC0415
    from tasks.model.pool import PoolOptions  # noqa: PLC0415
    from tasks.steps.pool_selection import newest_image  # noqa: PLC0415
    from tasks.steps.provision import create_pool  # noqa: PLC0415
    from tasks.workload.word_counts import word_count_workload  # noqa: PLC0415

    account = batch_account()
    pool_id = f"mine-{uuid.uuid4().hex}"
    account.create_pool(
        PoolSpec(
            pool_id=pool_id,
            options=PoolOptions(slots_per_node=2),
            image=newest_image(account.list_images(), datetime.now(timezone.utc)),
            autoscale_formula="$TargetDedicatedNodes = 1;",
            start_task=StartTask(command_line="true", files=()),
            metadata={"whose": "mine"},
        )
    )
    Path("a.txt").write_text("one two two")
    Path("b.txt").write_bytes(b"\xff")

    with pytest.raises(FilesFailedError) as failure:
        run_flow(inputs=["a.txt", "b.txt"], pool_id=pool_id)

    good, bad = failure.value.report.files
    assert (good.status, good.result.provenance.pool_id) == ("done", pool_id)
    assert bad.status == "failed"
    workload = replace(word_count_workload(3, ignore_case=False), required_slots=3)
    with pytest.raises(ConfigurationError, match="needs 3 slots, and a node has 2"):
        create_pool.fn(None, workload, None, PoolOptions(pool_id=pool_id), 1)
    pool = account.get_pool(pool_id)
    assert (pool.state, pool.metadata) == ("active", {"whose": "mine"})
    assert_nothing_left()
    account.delete_jobs_and_pools([], [pool_id], 10)


def test_missing_pool_is_named(run_flow, assert_nothing_left):
    Path("a.txt").write_text("one")
    with pytest.raises(ConfigurationError, match="Pool `nowhere` does not exist"):
        run_flow(inputs=["a.txt"], pool_id="nowhere")
    assert_nothing_left()
