"""How far a run is, told to whoever listens in this process; nobody listens in a deployed run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One step's progress.

    Attributes:
        step: "staged", "submitted", "counted": what was done to that many files; "" where only a note is told.
        done: How many files.
        total: Of how many; None where only the note is new.
        note: What a person should know now.
    """

    step: str
    done: int = 0
    total: int | None = None
    note: str = ""


_listeners: list[Callable[[Progress], None]] = []


@contextmanager
def listening(listener: Callable[[Progress], None]) -> Iterator[None]:
    """Call a function with every progress that is made meanwhile; it is called from several threads."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def tell(note: str) -> bool:
    """Tell the listeners something that belongs to no step; returns whether there are any."""
    advance("", note=note)
    return bool(_listeners)


def advance(step: str, *, done: int = 0, total: int | None = None, note: str = "") -> None:
    """Tell the listeners that so many more files have passed a step."""
    for listener in _listeners:
        listener(Progress(step=step, done=done, total=total, note=note))
