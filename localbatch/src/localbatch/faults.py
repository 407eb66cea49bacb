"""What is made to go wrong on demand: requests, nodes and tasks, by a script that a test or a user writes.

A fault has a name and options, the same in Python (`faults.add("answer", operation="create_task", status=503)`), over
HTTP and in a file (`{"fault": "answer", "operation": "create_task", "status": 503}`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from http import HTTPStatus
from pathlib import Path
from typing import TypeAlias

from localbatch.models import AllocationFailure, Json, Node
from localbatch.pool_rules import CORE_QUOTA_REACHED
from localbatch.scheduler import Scheduler
from localbatch.states import IllegalTransition
from localbatch.store import Store, key_of

STOP_SECONDS = 0.05
"""How soon a delay ends when the server stops."""

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
_MAY_LOSE = frozenset({"idle", "running"})


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


class _Entry:
    """A fault, and what became of it."""

    def __init__(self, number: int, fault: Fault) -> None:
        self.number = number
        self.fault = fault
        self.fired = 0
        self.seed = fault.seed
        if fault.probability is not None and fault.seed is None:
            self.seed = secrets.randbits(32)
        self._random = random.Random(self.seed)  # noqa: S311 - chance that can be repeated is wanted
        self.times = fault.times
        if fault.times is None and fault.probability is None:
            self.times = 1

    @property
    def is_standing(self) -> bool:
        return self.fault.fault in STANDING_FAULTS

    @property
    def left(self) -> int | None:
        """How often it will happen yet; None if there is no end to it."""
        return None if self.times is None or self.is_standing else self.times - self.fired

    def matches(self, operation: str, path: str) -> bool:
        fault = self.fault
        return fnmatchcase(operation, fault.operation) and fnmatchcase(path, fault.path)

    def chance(self) -> bool:
        """Whether it hits this time."""
        return self.fault.probability is None or self._random.random() < self.fault.probability

    def json(self) -> Json:
        body: Json = {"id": self.number, "fault": self.fault.fault}
        body |= {name: getattr(self.fault, name) for name in OPTIONS[self.fault.fault] if name != "seed"}
        if self.seed is not None:
            body["seed"] = self.seed
        if not self.is_standing:  # They are looked up, not fired.
            body |= {"left": self.left, "fired": self.fired}
        return {name: value for name, value in body.items() if value is not None or name == "left"}


class Faults:
    """The script of one account. Safe to use from any thread."""

    def __init__(self, operations: Collection[str], *, names: Collection[str] = FAULTS) -> None:
        """Begin with an empty script.

        Args:
            operations: The names of all operations; a pattern that matches none of them is refused.
            names: The faults that can happen here.
        """
        self.on_change: Callable[[], None] = lambda: None
        """Is called after each change of the script."""
        self.is_stopping = False
        """Whether the server stops: requests that still wait for a delay are dropped."""
        self._operations = operations
        self._names = names
        self._lock = threading.Lock()
        self._entries: list[_Entry] = []
        self._added = 0
        self._is_changed = False

    def add(self, fault: str, **options: object) -> Json:
        """Add a fault to the script; return it as `listing` does.

        Raises:
            FaultError: There is no such fault, or it has no such option.
        """
        return self.add_all([{"fault": fault, **options}])[0]

    def add_all(self, bodies: object) -> list[Json]:
        """Add faults, as a list of objects of JSON or one object; all of them or, if one is refused, none.

        Raises:
            FaultError: One of them is no fault.
        """
        faults = [read_fault(body) for body in (bodies if isinstance(bodies, list) else [bodies])]
        for fault in faults:
            if fault.fault not in self._names:
                raise FaultError(f"{fault.fault} cannot happen here; the faults are {', '.join(self._names)}")
            if not any(fnmatchcase(operation, fault.operation) for operation in self._operations):
                raise FaultError(f"no operation is called {fault.operation!r}")
        with self._lock:
            entries = [_Entry(self._added + number, fault) for number, fault in enumerate(faults, 1)]
            self._added += len(entries)
            self._entries += entries
            self._is_changed = True
            added = [entry.json() for entry in entries]
        self.on_change()
        return added

    def listing(self) -> list[Json]:
        """Return the script: each fault with how often it fired and how often it will yet."""
        with self._lock:
            return [entry.json() for entry in self._entries]

    def clear(self) -> None:
        """Empty the script. What has happened stays."""
        with self._lock:
            self._entries.clear()
            self._is_changed = True
        self.on_change()

    def take(self, operation: str, path: str) -> Sequence[Fault]:
        """Return what happens to a request: any delays, then at most one fault of another kind."""
        taken: list[Fault] = []
        if not self._entries:
            return taken
        with self._lock:
            for entry in self._entries:
                fault = entry.fault
                if fault.fault not in REQUEST_FAULTS or entry.left == 0 or not entry.matches(operation, path):
                    continue
                if entry.chance():
                    entry.fired += 1
                    taken.append(fault)
                    if fault.fault != "delay":
                        break
        return taken

    def apply(self, store: Store, scheduler: Scheduler, now: datetime) -> None:
        """Let happen to nodes what is due; the caller holds the lock of the store."""
        if not self._entries and not self._is_changed:
            return
        with self._lock:
            if self._is_changed:
                _stand(scheduler, [entry.fault for entry in self._entries])
                self._is_changed = False
            for entry in self._entries:
                while entry.fault.fault in NODE_FAULTS and entry.left and _strike(entry.fault, store, scheduler, now):
                    entry.fired += 1


async def meet(faults: Faults, operation: str, path: str) -> Fault | None:
    """Let a request wait for its delays; return the other fault that it meets, if it meets one."""
    for fault in faults.take(operation, path):
        if fault.fault != "delay":
            return fault
        ends_at = time.monotonic() + fault.seconds
        while (left := ends_at - time.monotonic()) > 0:
            if faults.is_stopping:
                return Fault(fault="drop_before")
            await asyncio.sleep(min(left, STOP_SECONDS))
    return None


def _stand(scheduler: Scheduler, faults: Iterable[Fault]) -> None:
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


def _strike(fault: Fault, store: Store, scheduler: Scheduler, now: datetime) -> bool:
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


def read_script(path: Path) -> Mapping[str, object]:
    """Return the faults of a file: a list for the Batch account, or an object with `faults` and `storage_faults`.

    Raises:
        FaultError: The file cannot be read, or has another form.
    """
    try:
        script = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise FaultError(f"{path}: {error}") from error
    if isinstance(script, list):
        return {"faults": script}
    if not isinstance(script, dict) or not set(script) <= {"faults", "storage_faults"}:
        raise FaultError(f"{path}: neither a list of faults nor an object with faults and storage_faults")
    return script
