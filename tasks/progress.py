"""How far a run is, told to whoever listens in this process; nobody listens in a deployed run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

CLEANUP = "cleanup"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One step's progress.

    Attributes:
        step: "staged", "submitted", "completed": what was done to that many files; "" where only a note is told.
        done: How many files.
        total: Of how many; None where only the note is new.
        note: What a person should know now.
        flow_run_id: The run that has begun, told once.
    """

    step: str
    done: int = 0
    total: int | None = None
    note: str = ""
    flow_run_id: str = ""


_listeners: list[Callable[[Progress], None]] = []


@contextmanager
def listen(listener: Callable[[Progress], None]) -> Iterator[None]:
    """Call a function with every progress that is made meanwhile; it is called from several threads."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def notify(note: str) -> bool:
    """Tell the listeners something that belongs to no step; returns whether there are any."""
    _notify(Progress(step="", note=note))
    return bool(_listeners)


def run_started(flow_run_id: str) -> None:
    """Tell the listeners which run has begun."""
    _notify(Progress(step="", flow_run_id=flow_run_id))


def cleaning_up() -> None:
    """Tell the listeners that the run deletes what it made."""
    _notify(Progress(step=CLEANUP))


def advance(step: str, *, done: int = 0, total: int | None = None) -> None:
    """Tell the listeners that so many more files have passed a step."""
    _notify(Progress(step=step, done=done, total=total))


def _notify(progress: Progress) -> None:
    for listener in _listeners:
        listener(progress)
