"""The states of pools, nodes, jobs, job schedules and Batch tasks, and the events that lead from one state to the next.

Each table maps a state to the events it allows and the states that they lead to; all other events are illegal. The
scheduler decides which event happens.

https://learn.microsoft.com/rest/api/batchservice/, version 2025-06-01: the enumerations named below each table.
"""

from __future__ import annotations

from collections.abc import Mapping

Table = Mapping[str, Mapping[str, str]]

POOL: Table = {
    "active": {"delete": "deleting"},
    "deleting": {},
}
"""BatchPoolState. A deleted pool has no state."""

ALLOCATION: Table = {
    "resizing": {"allocated": "steady", "failed": "steady", "stop": "stopping", "empty": "resizing"},
    "steady": {"resize": "resizing", "empty": "resizing"},
    "stopping": {"stopped": "steady", "empty": "resizing"},
}
"""AllocationState. `empty` is the resize to zero nodes before a pool is deleted. It replaces any other resize."""

_LOST = {"preempt": "preempted", "break": "unusable", "lose": "unknown", "leave": "leavingpool"}
"""Events that a node can meet at any time."""
_MAINTAINED = {"reboot": "rebooting", "reimage": "reimaging", "deallocate": "deallocating"}
"""Events that clients request for an idle or running node.

A node whose start task failed can be rebooted and reimaged too. The reference does not say so, but Batch Shipyard did it
for years ("reboot_on_start_task_failed")."""

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
"""BatchNodeState. The state upgradingos does not occur. A node that has left its pool has no state."""

_LIVE = {"terminate": "terminating", "delete": "deleting"}
JOB: Table = {
    "active": {"enable": "active", "disable": "disabling", "fail": "completed", **_LIVE},
    "disabling": {"enable": "enabling", "disable": "disabling", "disabled": "disabled", **_LIVE},
    "disabled": {"enable": "enabling", "disable": "disabling", **_LIVE},
    "enabling": {"enabled": "active", **_LIVE},
    "terminating": {"terminated": "completed", "delete": "deleting"},
    "completed": {"delete": "deleting"},
    "deleting": {},
}
"""BatchJobState. A job that is active, disabling or disabled can be enabled and disabled, as the documentation said in 2017:
https://learn.microsoft.com/rest/api/batchservice/enable-a-job. `fail` ends a job whose automatic pool could not be created. A deleted job has no state."""

SCHEDULE: Table = {
    "active": {"disable": "disabled", "terminate": "terminating", "delete": "deleting"},
    "disabled": {"enable": "active", "terminate": "terminating", "delete": "deleting"},
    "terminating": {"terminated": "completed", "delete": "deleting"},
    "completed": {"delete": "deleting"},
    "deleting": {},
}
"""BatchJobScheduleState. A schedule that will create no more jobs terminates by itself."""

TASK: Table = {
    "active": {"prepare": "preparing", "start": "running", "end": "completed"},
    "preparing": {"start": "running", "requeue": "active", "end": "completed"},
    "running": {"retry": "active", "requeue": "active", "end": "completed"},
    "completed": {"reactivate": "active"},
}
"""BatchTaskState. A `preparing` Batch task waits for the job preparation task of its node. `retry` follows a failed attempt,
`requeue` the loss of the node. Only retries count for maxTaskRetryCount."""

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
    "Job schedule": SCHEDULE,
    "Batch task": TASK,
    "Start, job preparation and job release task": CHORE,
}


class IllegalTransition(Exception):  # noqa: N818 - the established name.
    """The state does not allow the event; nothing was changed."""

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
