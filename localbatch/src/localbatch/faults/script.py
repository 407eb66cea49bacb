"""What is made to go wrong on demand: requests, nodes and tasks, by a script that a test or a user writes.

A fault has a name and options, the same in Python (`faults.add("answer", operation="create_task", status=503)`), over
HTTP and in a file (`{"fault": "answer", "operation": "create_task", "status": 503}`).
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path

from localbatch.account.specs import Json
from localbatch.account.store import Store
from localbatch.faults.definitions import (
    FAULTS,
    NODE_FAULTS,
    OPTIONS,
    REQUEST_FAULTS,
    STANDING_FAULTS,
    Fault,
    FaultError,
    read_fault,
)
from localbatch.faults.effects import apply_node_fault, enforce_standing_faults
from localbatch.rules.scheduler import Scheduler

STOP_SECONDS = 0.05
"""How soon a delay ends when the server stops."""


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
                enforce_standing_faults(scheduler.faults, [entry.fault for entry in self._entries])
                self._is_changed = False
            for entry in self._entries:
                while (
                    entry.fault.fault in NODE_FAULTS
                    and entry.left
                    and apply_node_fault(entry.fault, store, scheduler.nodes, now)
                ):
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
