"""The objects that `make up` manages on its Prefect server: the work pool, the block type and flow runs."""

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

OPEN_STATES = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)


def prepare_server(work_pool: str) -> None:
    """Ensure that the work pool and block type exist, and close the flow runs of an earlier `make up`."""
    _register_block_type()
    template = ProcessWorker.get_default_base_job_template()
    with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name=work_pool, type=ProcessWorker.type, base_job_template=template))
    crash_dead_runs()
    _cancel_missed_runs()


def _register_block_type() -> None:
    """Register the block type.

    A retry fails with `ObjectAlreadyExists` if a busy server created the type but returned an error. The second call
    then updates the type.
    """
    try:
        TopnAzure.register_type_and_schema()
    except ObjectAlreadyExists:
        TopnAzure.register_type_and_schema()


def cancel_runs(timeout_seconds: float) -> None:
    """Cancel the open runs of deployments, and wait until the worker has cleaned up after them, or for the timeout.

    A run whose process is still starting has created nothing, and is set to Cancelled. In state Cancelling, it would
    stay there for five minutes.
    """
    deadline = time.monotonic() + timeout_seconds
    with get_client(sync_client=True) as client:
        for flow_run in _deployed(_flow_runs(client, OPEN_STATES)):
            is_starting = flow_run.state_type == StateType.PENDING
            state: State[Any] = Cancelled(message=STOPPED) if is_starting else Cancelling(message=STOPPED)
            _set_state(client, flow_run, state)
        while _deployed(_flow_runs(client, OPEN_STATES)) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)


def count_open_runs() -> int:
    """Return the number of open runs of deployments."""
    with get_client(sync_client=True) as client:
        return len(_deployed(_flow_runs(client, OPEN_STATES)))


def crash_dead_runs() -> None:
    """Set all open runs to Crashed, which the worker that started them can no longer do."""
    with get_client(sync_client=True) as client:
        for flow_run in _flow_runs(client, OPEN_STATES):
            _set_state(client, flow_run, Crashed(message="`make up` or its worker exited during this run."))


def _cancel_missed_runs() -> None:
    """Cancel the runs that were scheduled while `make up` did not run. The worker would start all of them at once."""
    now = datetime.now(timezone.utc)
    with get_client(sync_client=True) as client:
        for flow_run in _flow_runs(client, (StateType.SCHEDULED,)):
            if (
                flow_run.auto_scheduled
                and flow_run.expected_start_time is not None
                and flow_run.expected_start_time < now
            ):
                _set_state(client, flow_run, Cancelled(message="Missed: `make up` was not running at that time."))


def _flow_runs(client: SyncPrefectClient, states: Collection[StateType]) -> list[FlowRun]:
    state = FlowRunFilterState(type=FlowRunFilterStateType(any_=list(states)))
    return client.read_flow_runs(flow_run_filter=FlowRunFilter(state=state))


def _deployed(flow_runs: Collection[FlowRun]) -> list[FlowRun]:
    return [flow_run for flow_run in flow_runs if flow_run.deployment_id is not None]


def _set_state(client: SyncPrefectClient, flow_run: FlowRun, state: State[Any]) -> None:
    client.set_flow_run_state(flow_run.id, state, force=True)
