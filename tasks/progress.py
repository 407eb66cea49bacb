"""Progress of a run, for listeners in the same process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

CLEANUP = "cleanup"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One message about the progress of a run.

    Attributes:
        step: "staged", "submitted", "completed" or `CLEANUP`; "" if the message belongs to no step.
        done: Number of files that have completed the step since the last message.
        total: Number of all files of the step, in its first message; otherwise None.
        note: A note for the user.
        flow_run_id: Id of the flow run, in the message about its start.
        remaining: Resources that the cleanup did not delete, with the reasons, in the message about its end; otherwise None.
    """

    step: str
    done: int = 0
    total: int | None = None
    note: str = ""
    flow_run_id: str = ""
    remaining: Mapping[str, str] | None = None


_listeners: list[Callable[[Progress], None]] = []


@contextmanager
def listen(listener: Callable[[Progress], None]) -> Iterator[None]:
    """Call `listener` with every message, in the thread that sends it, until the block ends."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def notify(note: str) -> bool:
    """Send a note for the user to the listeners, and return whether there are any."""
    _send(Progress(step="", note=note))
    return bool(_listeners)


def run_started(flow_run_id: str) -> None:
    """Notify the listeners that a run has started."""
    _send(Progress(step="", flow_run_id=flow_run_id))


def cleanup_started() -> None:
    """Notify the listeners that the cleanup of the run has started."""
    _send(Progress(step=CLEANUP))


def cleanup_ended(remaining: Mapping[str, str]) -> None:
    """Notify the listeners that the cleanup of the run has ended, and what it did not delete."""
    _send(Progress(step=CLEANUP, remaining=remaining))


def advance(step: str, *, done: int = 0, total: int | None = None) -> None:
    """Notify the listeners of files that have completed a step, or of the total of a step."""
    _send(Progress(step=step, done=done, total=total))


def _send(progress: Progress) -> None:
    for listener in _listeners:
        listener(progress)
