"""The flow, called as a function."""

from __future__ import annotations

import uuid
from datetime import datetime, timezone
from pathlib import Path

import pytest

from tasks.errors import ConfigurationError
from tasks.report.model import FilesFailedError


@pytest.fixture
def run_flow(topn):
    """Return a function that calls the flow with parameters."""

    def run(**parameters):
        from flows.topn import topn as flow  # noqa: PLC0415 - takes seconds

        with topn.environ():
            return flow(**parameters)

    return run


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
    pool = account.get_pool(pool_id)
    assert (pool.state, pool.metadata) == ("active", {"whose": "mine"})
    assert_nothing_left()
    account.delete_jobs_and_pools([], [pool_id], 10)


def test_missing_pool_is_named(run_flow, assert_nothing_left):
    Path("a.txt").write_text("one")
    with pytest.raises(ConfigurationError, match="Pool `nowhere` does not exist"):
        run_flow(inputs=["a.txt"], pool_id="nowhere")
    assert_nothing_left()
