"""The faults that exist: their names, their options and the checks of a fault in a script.

A fault has a name and options, the same in Python (`faults.add("answer", operation="create_task", status=503)`), over
HTTP and in a file (`{"fault": "answer", "operation": "create_task", "status": 503}`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from localbatch.rules import autoscale
from localbatch.rules.pools import CORE_QUOTA_REACHED, FAMILY_QUOTA_REACHED

REQUEST_FAULTS: Mapping[str, str] = {
    "answer": "The response is an error with a status, an error code and optionally Retry-After. The request has no effect.",
    "drop_before": "The connection is closed without a response. The request has no effect.",
    "drop_after": "The request takes effect, and the connection is closed without a response.",
    "delay": "The response is delayed by some seconds. Other requests are not.",
}
NODE_FAULTS: Mapping[str, str] = {
    "preempt_node": "A node is preempted: its tasks are requeued, and it stays in the pool.",
    "recover_node": "A preempted node is created again, with the same id.",
    "make_node_unusable": "A node becomes unusable, with an error code and a message.",
    "lose_node": "A node no longer answers: its state is unknown.",
    "vanish_node": "A node is removed from its pool at once.",
}
STANDING_FAULTS: Mapping[str, str] = {
    "start_task_fails": "The start task of a pool ends with an exit code.",
    "allocation_fails": "A pool gets no nodes of a kind: its resize fails with an error code, or stalls.",
    "autoscale_fails": "Evaluations of the autoscale formula of a pool fail with an error code.",
    "endless_task": "A Batch task never ends by itself.",
    "upload_fails": "The upload of the output files of a Batch task fails with an error code.",
}
# All faults with their descriptions. Standing faults without `times` apply until the script is cleared.
FAULTS: Mapping[str, str] = {**REQUEST_FAULTS, **NODE_FAULTS, **STANDING_FAULTS}

_REQUEST = ("operation", "path", "times", "probability", "seed")
_NODE = ("pool", "node", "when", "times")
# The options of each fault, which `Fault` describes.
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
    "allocation_fails": ("pool", "nodes", "code", "message", "values", "stalls"),
    "autoscale_fails": ("pool", "code", "message", "values", "times"),
    "endless_task": ("task",),
    "upload_fails": ("task", "code"),
}

# The types of options in JSON.
_TYPES: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("fault", "operation", "path", "code", "message", "pool", "node", "nodes", "when", "task"), (str,)),
    **dict.fromkeys(("times", "seed", "status", "retry_after", "exit_code"), (int,)),
    **dict.fromkeys(("probability", "seconds"), (int, float)),
    "stalls": (bool,),
    "values": (dict,),
}
_TYPE_NAMES = {str: "text", int: "number", bool: "boolean", dict: "JSON object"}
# The kinds of nodes that `nodes` selects, as whether they are dedicated.
NODES: Mapping[str, Collection[bool]] = {"all": (True, False), "dedicated": (True,), "spot": (False,)}
_REQUIRED: Mapping[str, Collection[str]] = {"delay": ("seconds",), "endless_task": ("task",)}
_CODES = {
    "make_node_unusable": "NodeUnusable",
    "allocation_fails": "AllocationFailed",
    "autoscale_fails": autoscale.INSUFFICIENT_DATA,
    "upload_fails": "FileUploadMiscError",
}
_REQUEST_CODES = {408: "RequestTimeout", 429: "TooManyRequests", 500: "InternalError", 503: "ServerBusy"}
_MESSAGES = {
    **{reached["code"]: reached["message"] for reached in CORE_QUOTA_REACHED.values()},
    **autoscale.MESSAGES,
    FAMILY_QUOTA_REACHED: "The specified account has reached VM series core quota",
    "AllocationFailed": "Desired number of {kind} nodes could not be allocated",
    "AllocationTimedout": "Desired number of {kind} nodes could not be allocated as the resize timeout was reached",
    "InternalError": "Server encountered an internal error. Please try again after some time.",
    "NodeUnusable": "The node is not usable.",
    "OperationTimedOut": "Operation could not be completed within the specified time.",
    "ServerBusy": "The server is currently unable to receive requests. Please retry your request.",
}
_STATUSES = frozenset(status for status in HTTPStatus if status >= HTTPStatus.BAD_REQUEST)


class FaultError(ValueError):
    """A fault is invalid; the message has the reason."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault of a script. OPTIONS lists the options of each fault; the others keep their defaults."""

    fault: str
    """A name of FAULTS."""

    operation: str = "*"
    """Requests: the name of the operation, or a pattern with `*`, `?` and `[...]`."""
    path: str = "*"
    """Requests: a pattern of the percent-encoded path."""
    times: int | None = None
    """The number of times; by default once, or without limit if there is a probability."""
    probability: float | None = None
    """Requests: the share of matching requests that the fault hits."""
    seed: int | None = None
    """The seed of the random choice: the same seed hits the same requests. By default random."""
    status: int = HTTPStatus.SERVICE_UNAVAILABLE
    code: str = ""
    """The error code; the default depends on the fault and the status."""
    message: str = ""
    retry_after: int | None = None
    """The header Retry-After in seconds; by default absent."""
    seconds: float = 0.0

    pool: str = "*"
    """Nodes: the id of the pool, or `*` for any."""
    node: str = "*"
    """Nodes: the id, or `*` for the first whose state allows the fault, preferably one with Batch tasks."""
    when: str = "now"
    """Nodes: `now`, as soon as there is such a node, or `task_running`, as soon as a Batch task is running on it."""
    exit_code: int = 1
    stalls: bool = False
    """Whether the resize stalls until its timeout instead of failing at once."""
    nodes: str = "all"
    """Allocation: `dedicated`, `spot` or `all`."""
    values: Mapping[str, str] = field(default_factory=dict)
    """Details of the error by name, such as `Reason` or `Provider Error Json` of a resize error."""
    task: str = "*"
    """The id of a Batch task, or `*` for all."""


def read_fault(body: object) -> Fault:
    """Return the fault of a JSON object.

    Raises:
        FaultError: It is invalid.
    """
    if not isinstance(body, Mapping):
        raise FaultError("A fault must be a JSON object")
    name = str(body.get("fault"))
    if name not in FAULTS:
        raise FaultError(f"{name!r} is not a fault. The faults are {', '.join(FAULTS)}")
    for option, value in body.items():
        if option != "fault" and option not in OPTIONS[name]:
            raise FaultError(f"{name} has no option {option!r}. Its options are {', '.join(OPTIONS[name])}")
        types = _TYPES[option]
        # bool is a subclass of int.
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
    if fault.nodes not in NODES:
        raise FaultError(f"nodes must be {', '.join(NODES)}, not {fault.nodes!r}")
    if not all(isinstance(value, str) for value in fault.values.values()):
        raise FaultError("values must contain texts only")


def code_of(fault: Fault) -> str:
    """Return the error code of a fault."""
    if fault.code:
        return fault.code
    if fault.stalls:
        return "AllocationTimedout"
    if fault.fault == "answer":
        return _REQUEST_CODES.get(fault.status) or HTTPStatus(fault.status).phrase.title().replace(" ", "")
    return _CODES[fault.fault]


def message_of(fault: Fault, kind: str = "dedicated") -> str:
    """Return the error message of a fault, which may name a kind of nodes."""
    default = _MESSAGES.get(code_of(fault), "This error was injected by a fault script.")
    return fault.message or default.format(kind=kind)
