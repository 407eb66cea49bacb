"""Fault scripts: which faults are still to be injected into requests, nodes and tasks, and how often each fired."""

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
    Fault,
    FaultError,
    read_fault,
)
from localbatch.faults.effects import apply_node_fault, enforce_standing_faults
from localbatch.rules.scheduler import Scheduler

# How soon a delay ends when the server stops.
STOP_SECONDS = 0.05


class _Entry:
    """A fault of the script, and how often it fired."""

    def __init__(self, number: int, fault: Fault) -> None:
        self.number = number
        self.fault = fault
        self.fired = 0
        self.seed = fault.seed
        if fault.probability is not None and fault.seed is None:
            self.seed = secrets.randbits(32)
        self._random = random.Random(self.seed)  # noqa: S311 - it must be reproducible.
        self.times = fault.times
        if fault.times is None and fault.probability is None:
            self.times = 1

    @property
    def is_standing(self) -> bool:
        return "times" not in OPTIONS[self.fault.fault]

    @property
    def left(self) -> int | None:
        """The number of times that it will still fire; None for no limit."""
        return None if self.times is None or self.is_standing else self.times - self.fired

    def matches(self, operation: str, path: str) -> bool:
        fault = self.fault
        return fnmatchcase(operation, fault.operation) and fnmatchcase(path, fault.path)

    def chance(self) -> bool:
        """Draw whether it fires for this request."""
        return self.fault.probability is None or self._random.random() < self.fault.probability

    def fire(self) -> bool:
        """Count it, and return True, unless it has fired as often as it may."""
        if self.left == 0:
            return False
        self.fired += 1
        return True

    def json(self) -> Json:
        body: Json = {"id": self.number, "fault": self.fault.fault}
        body |= {name: getattr(self.fault, name) for name in OPTIONS[self.fault.fault] if name != "seed"}
        if self.seed is not None:
            body["seed"] = self.seed
        if not self.is_standing:  # A standing fault applies without firing.
            body |= {"left": self.left, "fired": self.fired}
        return {name: value for name, value in body.items() if value is not None or name == "left"}


class Faults:
    """The fault script of one account. Thread-safe."""

    def __init__(self, operations: Collection[str], *, names: Collection[str] = FAULTS) -> None:
        """Create an empty script.

        Args:
            operations: The names of all operations. A pattern must match at least one.
            names: The names of the faults that this account supports.
        """
        self.on_change: Callable[[], None] = lambda: None
        """Called after each change of the script."""
        self.is_stopping = False
        """Whether the server is stopping. Delayed requests are then dropped."""
        self._operations = operations
        self._names = names
        self._lock = threading.Lock()
        self._entries: list[_Entry] = []
        self._added = 0
        self._is_changed = False

    def add(self, fault: str, **options: object) -> Json:
        """Add a fault to the script, and return it as in `listing`.

        Raises:
            FaultError: The name or an option is invalid.
        """
        return self.add_all([{"fault": fault, **options}])[0]

    def add_all(self, bodies: object) -> list[Json]:
        """Add a list of faults or one fault, as JSON objects. If one is invalid, none is added.

        Raises:
            FaultError: One of them is invalid.
        """
        faults = [read_fault(body) for body in (bodies if isinstance(bodies, list) else [bodies])]
        for fault in faults:
            if fault.fault not in self._names:
                raise FaultError(f"{fault.fault} cannot happen here. The faults are {', '.join(self._names)}")
            if not any(fnmatchcase(operation, fault.operation) for operation in self._operations):
                raise FaultError(f"there is no operation {fault.operation!r}")
        with self._lock:
            # Numbers are not reused, so that a listing identifies each fault.
            entries = [_Entry(self._added + number, fault) for number, fault in enumerate(faults, 1)]
            self._added += len(entries)
            self._entries += entries
            self._is_changed = True
            added = [entry.json() for entry in entries]
        self.on_change()
        return added

    def listing(self) -> list[Json]:
        """Return the script: each fault, how often it fired, and how often it will still fire."""
        with self._lock:
            return [entry.json() for entry in self._entries]

    def clear(self) -> None:
        """Clear the script. Faults that have fired are not undone."""
        with self._lock:
            self._entries.clear()
            self._is_changed = True
        self.on_change()

    def faults_of(self, operation: str, path: str) -> Sequence[Fault]:
        """Return the faults of a request: any number of delays, then at most one other fault."""
        taken: list[Fault] = []
        # Without the lock: this runs for each request, and the script is usually empty.
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
        """Apply the faults of nodes and the standing faults. The caller holds the lock of the store."""
        if not self._entries and not self._is_changed:
            return
        with self._lock:
            if self._is_changed:
                enforce_standing_faults(scheduler.faults, [(entry.fault, entry.fire) for entry in self._entries])
                self._is_changed = False
            for entry in self._entries:
                while (
                    entry.fault.fault in NODE_FAULTS
                    and entry.left
                    and apply_node_fault(entry.fault, store, scheduler.nodes, now)
                ):
                    entry.fired += 1


async def meet(faults: Faults, operation: str, path: str) -> Fault | None:
    """Wait for the delays of a request, and return its other fault, if it has one."""
    for fault in faults.faults_of(operation, path):
        if fault.fault != "delay":
            return fault
        ends_at = time.monotonic() + fault.seconds
        while (left := ends_at - time.monotonic()) > 0:
            if faults.is_stopping:
                return Fault(fault="drop_before")
            await asyncio.sleep(min(left, STOP_SECONDS))
    return None


def read_script(path: Path) -> Mapping[str, object]:
    """Read a script from a file: a list for the Batch account, or an object with `faults` and `storage_faults`.

    Raises:
        FaultError: The file cannot be read, or has another structure.
    """
    try:
        script = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise FaultError(f"{path}: {error}") from error
    if isinstance(script, list):
        return {"faults": script}
    if not isinstance(script, dict) or not set(script) <= {"faults", "storage_faults"}:
        raise FaultError(f"{path} must be a list of faults, or an object with faults and storage_faults")
    return script
