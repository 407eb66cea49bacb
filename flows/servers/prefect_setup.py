"""What `make up` does on its Prefect server: the work pool, the block type, and runs that nobody runs any more."""

from __future__ import annotations

import time
from collections.abc import Collection
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import ObjectAlreadyExists
from prefect.states import Cancelled, Cancelling, Crashed
from prefect.workers.process import ProcessWorker

from tasks.azure.block import TopnAzure

POLL_SECONDS = 0.2

STOPPED = "`make up` was stopped."

OPEN = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)


def prepare_server(work_pool: str) -> None:
    """Create the work pool if it is not there, make the block type known, and end what an earlier time left open."""
    _register_block_type()
    template = ProcessWorker.get_default_base_job_template()
    with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name=work_pool, type=ProcessWorker.type, base_job_template=template))
    end_dead_runs()
    _skip_missed_runs()


def _register_block_type() -> None:
    """Make the block type known; a server that was busy may have made it and asked the client to try again."""
    try:
        TopnAzure.register_type_and_schema()
    except ObjectAlreadyExists:
        TopnAzure.register_type_and_schema()


def cancel_runs(give_up_seconds: float) -> None:
    """Cancel the runs that a worker has begun, and wait until it has cleaned up after them, or for that long.

    A run whose process is still starting has made nothing; Prefect would leave it Cancelling for five minutes.
    """
    give_up_at = time.monotonic() + give_up_seconds
    with get_client(sync_client=True) as client:
        for flow_run in _of_deployments(_flow_runs(client, OPEN)):
            is_starting = flow_run.state_type == StateType.PENDING
            state: State[Any] = Cancelled(message=STOPPED) if is_starting else Cancelling(message=STOPPED)
            _set(client, flow_run, state)
        while _of_deployments(_flow_runs(client, OPEN)) and time.monotonic() < give_up_at:
            time.sleep(POLL_SECONDS)


def count_open_runs() -> int:
    """Count the runs that a worker has begun and not ended."""
    with get_client(sync_client=True) as client:
        return len(_of_deployments(_flow_runs(client, OPEN)))


def end_dead_runs() -> None:
    """Say of each run that is under way that it has crashed: without a worker, nobody else will."""
    with get_client(sync_client=True) as client:
        for flow_run in _flow_runs(client, OPEN):
            _set(client, flow_run, Crashed(message="Nobody runs this any more: `make up` or its worker ended."))


def _skip_missed_runs() -> None:
    """Cancel what was scheduled while nobody was there: a worker would do all of it at once."""
    now = datetime.now(timezone.utc)
    with get_client(sync_client=True) as client:
        for flow_run in _flow_runs(client, (StateType.SCHEDULED,)):
            if (
                flow_run.auto_scheduled
                and flow_run.expected_start_time is not None
                and flow_run.expected_start_time < now
            ):
                _set(client, flow_run, Cancelled(message="Missed: `make up` did not run at that time."))


def _flow_runs(client: SyncPrefectClient, states: Collection[StateType]) -> list[FlowRun]:
    state = FlowRunFilterState(type=FlowRunFilterStateType(any_=list(states)))
    return client.read_flow_runs(flow_run_filter=FlowRunFilter(state=state))


def _of_deployments(flow_runs: Collection[FlowRun]) -> list[FlowRun]:
    return [flow_run for flow_run in flow_runs if flow_run.deployment_id is not None]


def _set(client: SyncPrefectClient, flow_run: FlowRun, state: State[Any]) -> None:
    client.set_flow_run_state(flow_run.id, state, force=True)
