"""What can happen: the states of pools, nodes, jobs and Batch tasks, and what leads from one to the next.

Everything that affects a state must live here: each table maps a state to the events it allows and the state that
each leads to, and a missing key *is* the illegal transition. Deciding that an event happens is the scheduler's part.

Source: Batch REST API 2025-06-01, the enumerations named beside each table.
"""

from __future__ import annotations

from collections.abc import Mapping

Table = Mapping[str, Mapping[str, str]]

POOL: Table = {
    "active": {"delete": "deleting"},
    "deleting": {},
}
"""BatchPoolState. A pool that has been deleted has no state: it is gone."""

ALLOCATION: Table = {
    "resizing": {"allocated": "steady", "failed": "steady", "stop": "stopping", "empty": "resizing"},
    "steady": {"resize": "resizing", "empty": "resizing"},
    "stopping": {"stopped": "steady", "empty": "resizing"},
}
"""AllocationState. `empty` is the resize to nothing that deleting a pool means; no other resize is in its way."""

_LOST = {"preempt": "preempted", "break": "unusable", "lose": "unknown", "leave": "leavingpool"}
"""What can befall a node at any time."""
_MAINTAINED = {"reboot": "rebooting", "reimage": "reimaging", "deallocate": "deallocating"}
"""What a user can have done to a node, while it is idle or running.

A node whose start task failed can be rebooted and reimaged too, whatever the reference says: Batch Shipyard did so for
years ("reboot_on_start_task_failed")."""

NODE: Table = {
    "creating": {"booted": "starting", **_LOST},
    "starting": {"start_task_started": "waitingforstarttask", "ready": "idle", **_LOST},
    "waitingforstarttask": {"ready": "idle", "start_task_failed": "starttaskfailed", **_LOST},
    "starttaskfailed": {"reboot": "rebooting", "reimage": "reimaging", **_LOST},
    "idle": {"occupied": "running", "disable": "offline", **_MAINTAINED, **_LOST},
    "running": {"drained": "idle", **_MAINTAINED, **_LOST},
    "offline": {"enable": "idle", **_LOST},
    "rebooting": {"booted": "starting", **_LOST},
    "reimaging": {"booted": "starting", **_LOST},
    "deallocating": {"deallocated": "deallocated", **_LOST},
    "deallocated": {"start": "starting", "leave": "leavingpool"},
    "preempted": {"recover": "creating", "leave": "leavingpool"},
    "unusable": {"recover": "creating", "leave": "leavingpool"},
    "unknown": {"recover": "creating", "leave": "leavingpool"},
    "leavingpool": {},
}
"""BatchNodeState. Never entered: upgradingos. A node that has left its pool is gone."""

JOB: Table = {
    "active": {"disable": "disabling", "terminate": "terminating", "fail": "completed", "delete": "deleting"},
    "disabling": {"disable": "disabling", "disabled": "disabled", "terminate": "terminating", "delete": "deleting"},
    "disabled": {"disable": "disabling", "enable": "enabling", "terminate": "terminating", "delete": "deleting"},
    "enabling": {"enabled": "active", "terminate": "terminating", "delete": "deleting"},
    "terminating": {"terminated": "completed", "delete": "deleting"},
    "completed": {"delete": "deleting"},
    "deleting": {},
}
"""BatchJobState. `fail` ends a job whose automatic pool could not be made. A job that has been deleted is gone."""

TASK: Table = {
    "active": {"prepare": "preparing", "start": "running", "end": "completed"},
    "preparing": {"start": "running", "requeue": "active", "end": "completed"},
    "running": {"retry": "active", "requeue": "active", "end": "completed"},
    "completed": {"reactivate": "active"},
}
"""BatchTaskState. `preparing` waits for the job preparation task of its node. `retry` is an attempt that failed,
`requeue` a node that was lost: only the first counts against maxTaskRetryCount."""

CHORE: Table = {
    "running": {"end": "completed", "retry": "running"},
    "completed": {},
}
"""BatchStartTaskState, BatchJobPreparationTaskState and BatchJobReleaseTaskState: tasks that belong to a node."""

TABLES: Mapping[str, Table] = {
    "Pool": POOL,
    "Allocation of a pool": ALLOCATION,
    "Node": NODE,
    "Job": JOB,
    "Batch task": TASK,
    "Start, job preparation and job release task": CHORE,
}


class IllegalTransition(Exception):  # noqa: N818 - h11's word for it; nothing here is a failure of the machine.
    """An event was reported that the state does not allow; nothing was changed."""

    def __init__(self, state: str, event: str) -> None:
        super().__init__(f"{event!r} cannot happen in state {state!r}")
        self.state = state
        self.event = event


def advance(table: Table, state: str, event: str) -> str:
    """Return the state that `event` leads to.

    Raises:
        IllegalTransition: The table has no such event for the state.
    """
    try:
        return table[state][event]
    except KeyError:
        raise IllegalTransition(state, event) from None
