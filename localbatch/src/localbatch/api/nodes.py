"""The handlers of the operations on nodes and their files.

https://learn.microsoft.com/rest/api/batchservice/nodes
"""

from __future__ import annotations

import uuid
from collections.abc import Callable

from starlette.responses import Response

from localbatch import errors
from localbatch.account import states
from localbatch.account.records import Node, UploadLog
from localbatch.api import odata, response_bodies
from localbatch.api.files import answer_with_file, delete_file, list_files_below
from localbatch.api.paging import listing
from localbatch.api.requests import Call
from localbatch.api.responses import done, json_answer, one

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


# Status, headers and bodies of the operations below were recorded:
# https://github.com/Azure/azure-sdk-for-python, sdk/batch/azure-batch/tests/recordings, test_batch_compute_node_user and
# test_batch_compute_nodes


def create_node_user(call: Call) -> Response:
    """POST /pools/{pool_id}/nodes/{node_id}/users. The user has no effect, so its password is not kept."""
    node, body = _node_for_users(call), call.json("node_user")
    name = body["name"]
    if name in node.users:
        raise errors.node_user_exists()
    node.users.add(name)
    return done(201, url=call.url(node, f"/users/{name}"))


def replace_node_user(call: Call) -> Response:
    """PUT /pools/{pool_id}/nodes/{node_id}/users/{user_name}."""
    node, name = _node_with_user(call)
    call.json("node_user_change")
    return done(200, url=call.url(node, f"/users/{name}"))


def delete_node_user(call: Call) -> Response:
    """DELETE /pools/{pool_id}/nodes/{node_id}/users/{user_name}."""
    node, name = _node_with_user(call)
    node.users.remove(name)
    return done(200)


def _node_for_users(call: Call) -> Node:
    # https://learn.microsoft.com/rest/api/batchservice/nodes/create-node-user: only idle and running nodes.
    node = call.node()
    if node.state not in {"idle", "running"}:
        raise _state_error(node)
    return node


def _node_with_user(call: Call) -> tuple[Node, str]:
    node, name = _node_for_users(call), call.parameters["user_name"]
    if name not in node.users:
        raise errors.node_user_not_found()
    return node, name


def get_node_remote_login_settings(call: Call) -> Response:
    """GET /pools/{pool_id}/nodes/{node_id}/remoteloginsettings. The endpoint is shown, but does not exist."""
    node = call.node()
    settings = response_bodies.remote_login_json(node, call.store.pool(node.pool_id))
    response = json_answer(call, "Microsoft.Azure.Batch.Protocol.Entities.RemoteLoginSettings", settings)
    response.headers["DataServiceId"] = call.url(node, "/remoteloginsettings")
    return response


def upload_node_logs(call: Call) -> Response:
    """POST /pools/{pool_id}/nodes/{node_id}/uploadbatchservicelogs. The node uploads one file after the response."""
    node, body = call.node(), call.json("upload_logs")
    # On the service, the first part is the name of the account with a random number.
    account = f"localbatch-{uuid.uuid4().hex[:16].upper()}"
    directory = f"{account}/{node.pool_id}/{node.id}/{uuid.uuid4()}"
    by_identity = "identityReference" in body
    log = UploadLog(
        node=node, container_url=body["containerUrl"], name=f"{directory}/agent.log", by_identity=by_identity
    )
    call.store.outbox.append(log)
    result = {"virtualDirectoryName": directory, "numberOfFilesUploaded": 1}
    return json_answer(call, "Microsoft.Azure.Batch.Protocol.Entities.UploadBatchServiceLogsResult", result)
