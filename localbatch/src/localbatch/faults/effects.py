"""What faults do to nodes and to the rules."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TypeAlias

from localbatch.account.records import AllocationFailure, Node
from localbatch.account.states import IllegalTransition
from localbatch.account.store import Store, key_of
from localbatch.faults.definitions import Fault, code_of, message_of
from localbatch.rules.scheduler import Scheduler

_MAY_LOSE = frozenset({"idle", "running"})


def enforce_standing_faults(scheduler: Scheduler, faults: Iterable[Fault]) -> None:
    """Put the standing faults of a script in force, and no others."""
    for standing in (
        scheduler.allocation_failures,
        scheduler.start_task_exit_code,
        scheduler.endless_tasks,
        scheduler.failing_uploads,
    ):
        standing.clear()
    for fault in faults:
        if fault.fault == "allocation_fails":
            code = code_of(fault)
            failure = AllocationFailure(code=code, message=message_of(fault), stalls=fault.stalls)
            scheduler.allocation_failures[fault.pool] = failure
        elif fault.fault == "start_task_fails":
            scheduler.start_task_exit_code[fault.pool] = fault.exit_code
        elif fault.fault == "endless_task":
            scheduler.endless_tasks.add(fault.task)
        elif fault.fault == "upload_fails":
            scheduler.failing_uploads[fault.task] = code_of(fault)


_Strike: TypeAlias = Callable[[str, str, datetime], None]


def apply_node_fault(fault: Fault, store: Store, scheduler: Scheduler, now: datetime) -> bool:
    """Let a fault happen to the first node that it can happen to; return whether there was one."""

    def make_unusable(pool_id: str, node_id: str, now: datetime) -> None:
        scheduler.make_node_unusable(pool_id, node_id, code_of(fault), message_of(fault), now)

    strikes: Mapping[str, _Strike] = {
        "preempt_node": scheduler.preempt_node,
        "recover_node": scheduler.recover_node,
        "make_node_unusable": make_unusable,
        "lose_node": scheduler.lose_node,
        "vanish_node": scheduler.remove_node_abruptly,
    }
    for node in _candidates(fault, store):
        with contextlib.suppress(IllegalTransition):
            strikes[fault.fault](node.pool_id, node.id, now)
            return True
    return False


def _candidates(fault: Fault, store: Store) -> list[Node]:
    """Return the nodes that a fault may happen to, the likeliest first."""
    nodes = [
        node
        for pool in list(store.pools.values())
        for node in pool.nodes.values()
        if fault.pool in {"*", pool.id} or key_of(fault.pool) == key_of(pool.id)
    ]
    if fault.node != "*":
        nodes = [node for node in nodes if key_of(node.id) == key_of(fault.node)]
    elif fault.fault != "recover_node":
        nodes = [node for node in nodes if node.state in _MAY_LOSE]
    if fault.when == "task_running":
        nodes = [node for node in nodes if any(task.state == "running" for task in node.tasks.values())]
    # Azure preempts spot nodes; where a pool has none, another may stand for one.
    return sorted(nodes, key=lambda node: (fault.fault == "preempt_node" and node.dedicated, not node.tasks))
