"""The faults that exist: their names, their options and the checks of a fault in a script.

A fault has a name and options, the same in Python (`faults.add("answer", operation="create_task", status=503)`), over
HTTP and in a file (`{"fault": "answer", "operation": "create_task", "status": 503}`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from localbatch.rules.pools import CORE_QUOTA_REACHED

REQUEST_FAULTS: Mapping[str, str] = {
    "answer": "Requests are answered with a status, an error code and perhaps Retry-After, and nothing is done.",
    "drop_before": "The connection is closed without an answer, and nothing is done.",
    "drop_after": "The request takes effect, and the connection is closed without an answer.",
    "delay": "The answer comes some seconds later; other requests do not wait.",
}
NODE_FAULTS: Mapping[str, str] = {
    "preempt_node": "A node is preempted: its tasks are requeued, and it stays in the pool.",
    "recover_node": "A preempted node comes back, under the same id.",
    "make_node_unusable": "A node becomes unusable, with an error code and a message.",
    "lose_node": "A node does not answer any more: its state is unknown.",
    "vanish_node": "A node is gone from its pool, without having left it.",
}
STANDING_FAULTS: Mapping[str, str] = {
    "start_task_fails": "The start task of a pool's nodes ends with an exit code.",
    "allocation_fails": "A pool gets no nodes: its resize ends with an error code, or stalls.",
    "endless_task": "A task never ends by itself.",
    "upload_fails": "The upload of a task's output files fails with a code.",
}
FAULTS: Mapping[str, str] = {**REQUEST_FAULTS, **NODE_FAULTS, **STANDING_FAULTS}
"""What can be made to happen, and what that means. Node faults happen as often as asked, standing ones until the
script is cleared."""

_REQUEST = ("operation", "path", "times", "probability", "seed")
_NODE = ("pool", "node", "when", "times")
OPTIONS: Mapping[str, Collection[str]] = {
    "answer": (*_REQUEST, "status", "code", "message", "retry_after"),
    "drop_before": _REQUEST,
    "drop_after": _REQUEST,
    "delay": (*_REQUEST, "seconds"),
    "preempt_node": _NODE,
    "recover_node": _NODE,
    "make_node_unusable": (*_NODE, "code", "message"),
    "lose_node": _NODE,
    "vanish_node": _NODE,
    "start_task_fails": ("pool", "exit_code"),
    "allocation_fails": ("pool", "code", "message", "stalls"),
    "endless_task": ("task",),
    "upload_fails": ("task", "code"),
}
"""The options that each fault has; `Fault` says what they mean."""

_TYPES: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("fault", "operation", "path", "code", "message", "pool", "node", "when", "task"), (str,)),
    **dict.fromkeys(("times", "seed", "status", "retry_after", "exit_code"), (int,)),
    **dict.fromkeys(("probability", "seconds"), (int, float)),
    "stalls": (bool,),
}
_TYPE_NAMES = {str: "text", int: "number", bool: "boolean"}
_REQUIRED: Mapping[str, Collection[str]] = {"delay": ("seconds",), "endless_task": ("task",)}
_CODES = {
    "make_node_unusable": "NodeUnusable",
    "allocation_fails": "AllocationFailed",
    "upload_fails": "FileUploadMiscError",
}
_REQUEST_CODES = {408: "RequestTimeout", 429: "TooManyRequests", 500: "InternalError", 503: "ServerBusy"}
_MESSAGES = {
    **{reached["code"]: reached["message"] for reached in CORE_QUOTA_REACHED.values()},
    "AllocationFailed": "Desired number of nodes could not be allocated.",
    "AllocationTimedout": "Desired number of nodes could not be allocated as the resize timeout was reached.",
    "InternalError": "Server encountered an internal error. Please try again after some time.",
    "NodeUnusable": "The node is not usable.",
    "OperationTimedOut": "Operation could not be completed within the specified time.",
    "ServerBusy": "The server is currently unable to receive requests. Please retry your request.",
}
_STATUSES = frozenset(status for status in HTTPStatus if status >= HTTPStatus.BAD_REQUEST)


class FaultError(ValueError):
    """A fault cannot be understood; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One entry of a script. Which options a fault has depends on its name; the others keep their defaults."""

    fault: str
    """A name of FAULTS."""

    operation: str = "*"
    """Requests: the operation's name, or a pattern with `*`, `?` and `[...]`."""
    path: str = "*"
    """Requests: a pattern for the path, as it stands on the wire."""
    times: int | None = None
    """How often: once, or with a probability without end, unless it is given."""
    probability: float | None = None
    """Requests: the share of matching calls that are hit."""
    seed: int | None = None
    """Of the chance: the same seed hits the same calls. Chosen unless given."""
    status: int = HTTPStatus.SERVICE_UNAVAILABLE
    code: str = ""
    """The error code; each fault and each usual status has one of its own."""
    message: str = ""
    retry_after: int | None = None
    """The value of Retry-After in seconds; no such header unless given."""
    seconds: float = 0.0

    pool: str = "*"
    """Nodes: the id of their pool, or `*` for any."""
    node: str = "*"
    """Nodes: an id, or `*` for the first that it can happen to, one with tasks if there is one."""
    when: str = "now"
    """Nodes: `now`, as soon as there is such a node, or `task_running`, as soon as a task runs on it."""
    exit_code: int = 1
    stalls: bool = False
    """The resize goes on and on, instead of ending with the code."""
    task: str = "*"
    """The id of a task, or `*` for all."""


def read_fault(body: object) -> Fault:
    """Return the fault that an object of JSON describes.

    Raises:
        FaultError: It describes none.
    """
    if not isinstance(body, Mapping):
        raise FaultError("A fault is an object")
    name = str(body.get("fault"))
    if name not in FAULTS:
        raise FaultError(f"{name!r} is no fault; the faults are {', '.join(FAULTS)}")
    for option, value in body.items():
        if option != "fault" and option not in OPTIONS[name]:
            raise FaultError(f"{name} has no option {option!r}; its options are {', '.join(OPTIONS[name])}")
        types = _TYPES[option]
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise FaultError(f"{option} must be a {_TYPE_NAMES[types[0]]}, not {value!r}")
    missing = [option for option in _REQUIRED.get(name, ()) if option not in body]
    if missing:
        raise FaultError(f"{name} needs {missing[0]}")
    fault = Fault(**body)
    _check_values(fault)
    return fault


def _check_values(fault: Fault) -> None:
    if fault.times is not None and fault.times < 1:
        raise FaultError("times must be at least 1")
    if fault.probability is not None and not 0 <= fault.probability <= 1:
        raise FaultError("probability must be between 0 and 1")
    if fault.status not in _STATUSES:
        raise FaultError(f"{fault.status} is not the status of an error")
    if fault.seconds < 0 or (fault.retry_after or 0) < 0:
        raise FaultError("seconds and retry_after must not be negative")
    if fault.when not in {"now", "task_running"}:
        raise FaultError("when must be now or task_running")


def code_of(fault: Fault) -> str:
    """Return the error code that a fault shows."""
    if fault.code:
        return fault.code
    if fault.stalls:
        return "AllocationTimedout"
    if fault.fault == "answer":
        return _REQUEST_CODES.get(fault.status) or HTTPStatus(fault.status).phrase.title().replace(" ", "")
    return _CODES[fault.fault]


def message_of(fault: Fault) -> str:
    """Return the sentence that a fault shows."""
    return fault.message or _MESSAGES.get(code_of(fault), "This was asked for by a script of faults.")
