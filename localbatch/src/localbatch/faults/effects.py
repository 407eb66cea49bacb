"""The effects of faults on nodes and rules."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

from localbatch.account.records import Node
from localbatch.account.states import IllegalTransition
from localbatch.account.store import Store, key_of
from localbatch.faults.definitions import NODES, Fault, code_of, message_of
from localbatch.rules.nodes import NodeRules
from localbatch.rules.pools import NODE_KINDS
from localbatch.rules.standing_faults import AllocationFailure, AutoscaleFailure, StandingFaults, error_of

_UP = frozenset({"idle", "running"})


def enforce_standing_faults(standing: StandingFaults, script: Iterable[tuple[Fault, Callable[[], bool]]]) -> None:
    """Replace the standing faults with those of a script.

    Args:
        standing: The standing faults.
        script: The faults, each with a function that counts it and returns False if it is used up.
    """
    standing.clear()
    for fault, fire in script:
        if fault.fault == "allocation_fails":
            for dedicated in NODES[fault.nodes]:
                error = error_of(code_of(fault), message_of(fault, NODE_KINDS[dedicated]), fault.values)
                standing.allocation_failures[dedicated][fault.pool] = AllocationFailure(error, fault.stalls)
        elif fault.fault == "autoscale_fails":
            message = message_of(fault)
            error = error_of(code_of(fault), message, fault.values or {"Message": message})
            standing.autoscale_failures[fault.pool] = AutoscaleFailure(error, fire)
        elif fault.fault == "start_task_fails":
            standing.start_task_exit_codes[fault.pool] = fault.exit_code
        elif fault.fault == "endless_task":
            standing.endless_tasks.add(fault.task)
        elif fault.fault == "upload_fails":
            standing.failing_uploads[fault.task] = code_of(fault)


def apply_node_fault(fault: Fault, store: Store, rules: NodeRules, now: datetime) -> bool:
    """Apply a fault to the first node whose state allows it, and return whether there was one."""

    def make_unusable(node: Node, now: datetime) -> None:
        rules.make_unusable(node, code_of(fault), message_of(fault), now)

    effects: Mapping[str, Callable[[Node, datetime], None]] = {
        "preempt_node": rules.preempt,
        "recover_node": rules.recover,
        "make_node_unusable": make_unusable,
        "lose_node": rules.lose,
        "vanish_node": rules.remove_abruptly,
    }
    for node in _candidates(fault, store):
        with contextlib.suppress(IllegalTransition):
            effects[fault.fault](node, now)
            return True
    return False


def _candidates(fault: Fault, store: Store) -> list[Node]:
    """Return the nodes to which a fault may apply, in order of preference."""
    nodes = [
        node
        for pool in list(store.pools.values())
        for node in pool.nodes.values()
        if fault.pool in {"*", pool.id} or key_of(fault.pool) == key_of(pool.id)
    ]
    if fault.node != "*":
        nodes = [node for node in nodes if key_of(node.id) == key_of(fault.node)]
    elif fault.fault == "preempt_node" and not all(node.dedicated for node in nodes):
        # Azure preempts spot nodes only. In pools without them, any node may be preempted.
        nodes = [node for node in nodes if not node.dedicated and node.state in _UP]
    elif fault.fault != "recover_node":
        nodes = [node for node in nodes if node.state in _UP]
    if fault.when == "task_running":
        nodes = [node for node in nodes if any(task.state == "running" for task in node.tasks.values())]
    return sorted(nodes, key=lambda node: not node.tasks)
