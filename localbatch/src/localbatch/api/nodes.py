"""The handlers of the operations on nodes and their files.

https://learn.microsoft.com/rest/api/batchservice/nodes
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.responses import Response

from localbatch import errors
from localbatch.account import states
from localbatch.account.records import Node
from localbatch.api import odata, response_bodies
from localbatch.api.files import answer_with_file, delete_file, list_files_below
from localbatch.api.paging import listing
from localbatch.api.requests import Call
from localbatch.api.responses import done, one

UP = frozenset({"idle", "running", "offline"})

# The errors of requests that the state of the node does not allow.
_REFUSALS: dict[str, Callable[..., errors.ServiceError]] = {
    "creating": errors.node_being_created,
    "preempted": errors.node_being_created,
    "starting": errors.node_being_started,
    "waitingforstarttask": errors.node_being_started,
    "rebooting": errors.node_being_rebooted,
    "reimaging": errors.node_being_reimaged,
    "unusable": errors.node_state_unusable,
    "unknown": errors.node_state_unusable,
}


def _state_error(node: Node) -> errors.ServiceError:
    refusal = _REFUSALS.get(node.state)
    return refusal() if refusal else errors.operation_invalid_for_current_state(Reason=f"The node is {node.state}")


def get_node(call: Call) -> Response:
    """GET /pools/{pool_id}/nodes/{node_id}."""
    node = call.node()
    return one(call, "nodes", response_bodies.node_json(node, call.store.pool(node.pool_id), call.base))


def list_nodes(call: Call) -> Response:
    """GET /pools/{pool_id}/nodes."""
    pool = call.store.pool(call.parameters["pool_id"])
    return listing(
        call, "nodes", pool.nodes, odata.NODES, lambda node: response_bodies.node_json(node, pool, call.base)
    )


def _maintain(call: Call, event: str, property_name: str) -> Response:
    node = call.node()
    # The body names the option differently for each operation.
    option = call.json(event).get(property_name, "requeue")
    try:
        call.scheduler.nodes.maintain(node, event, option, call.now)
    except states.IllegalTransition as error:
        raise _state_error(node) from error
    return done(202, url=call.url(node, f"/{event}"))


def reboot_node(call: Call) -> Response:
    """POST /pools/{pool_id}/nodes/{node_id}/reboot."""
    return _maintain(call, "reboot", "nodeRebootOption")


def reimage_node(call: Call) -> Response:
    """POST /pools/{pool_id}/nodes/{node_id}/reimage."""
    return _maintain(call, "reimage", "nodeReimageOption")


def deallocate_node(call: Call) -> Response:
    """POST /pools/{pool_id}/nodes/{node_id}/deallocate."""
    return _maintain(call, "deallocate", "nodeDeallocateOption")


def start_node(call: Call) -> Response:
    """POST /pools/{pool_id}/nodes/{node_id}/start."""
    node = call.node()
    try:
        call.scheduler.nodes.start(node, call.now)
    # The state decides which error code clients see.
    except states.IllegalTransition as error:
        raise _state_error(node) from error
    return done(202, url=call.url(node, "/start"))


def disable_node_scheduling(call: Call) -> Response:
    """POST /pools/{pool_id}/nodes/{node_id}/disablescheduling."""
    node = _node_to_schedule(call, "disabled")
    option = call.json("disable_scheduling").get("nodeDisableSchedulingOption", "requeue")
    call.scheduler.nodes.disable_scheduling(node, option, call.now)
    return done(200, url=call.url(node, "/disablescheduling"))


def enable_node_scheduling(call: Call) -> Response:
    """POST /pools/{pool_id}/nodes/{node_id}/enablescheduling."""
    node = _node_to_schedule(call, "enabled")
    call.scheduler.nodes.enable_scheduling(node, call.now)
    return done(200, url=call.url(node, "/enablescheduling"))


def _node_to_schedule(call: Call, target: str) -> Node:
    node = call.node()
    if node.state not in UP:
        raise _state_error(node)
    # Unlike other operations, this one is not idempotent on the service.
    if node.scheduling == target:
        raise errors.node_already_in_target_scheduling_state()
    return node


def get_node_file(call: Call) -> Response:
    """GET or HEAD /pools/{pool_id}/nodes/{node_id}/files/{file_path}."""
    node = call.node()
    return answer_with_file(call, call.root_of(node), call.url(node, "/files"))


def delete_node_file(call: Call) -> Response:
    """DELETE /pools/{pool_id}/nodes/{node_id}/files/{file_path}."""
    return delete_file(call, call.root_of(call.node()))


def list_node_files(call: Call) -> Response:
    """GET /pools/{pool_id}/nodes/{node_id}/files."""
    node = call.node()
    return list_files_below(call, call.root_of(node), call.url(node, "/files"))
