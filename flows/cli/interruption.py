"""Signals that end a run."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from uuid import UUID

from flows.console import print_failed_deletions, say
from tasks.model.run import Keep
from tasks.progress import CLEANUP, Progress, notify

END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


# What a run that was asked to end needs until its cleanup begins: its threads finish the requests they are in.
ENDING_SECONDS = 15.0


class Interruption:
    """Requests to end: each raises KeyboardInterrupt, unless the run is ending already.

    An interrupt may be raised anywhere, also where Prefect takes it for an error of its own, or loses it; so a later
    request raises it again, and what the run's hook did not clean up is cleaned up here.
    """

    def __init__(self) -> None:
        self._asked_at = float("-inf")
        # Every signal leaves its number here, also one that Prefect receives and loses.
        self._seen, self._see = os.pipe()
        os.set_blocking(self._seen, False)
        os.set_blocking(self._see, False)
        self._is_asked = False
        self._flow_run_id = ""
        self._is_cleaned_up = False

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Receive the requests meanwhile."""
        before = {name: signal.signal(name, self._end) for name in END_SIGNALS}
        signal.set_wakeup_fd(self._see, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(-1)
            for name, handler in before.items():
                signal.signal(name, handler)
            os.close(self._seen)
            os.close(self._see)

    @property
    def is_asked(self) -> bool:
        """Whether anybody has asked the run to end."""
        try:
            numbers = os.read(self._seen, 4096)
        except BlockingIOError:
            numbers = b""
        self._is_asked = self._is_asked or any(number in END_SIGNALS for number in numbers)
        return self._is_asked

    def watch(self, progress: Progress) -> None:
        """Learn from the progress how far the run is."""
        self._flow_run_id = progress.flow_run_id or self._flow_run_id
        self._is_cleaned_up = self._is_cleaned_up or progress.step == CLEANUP

    def clean_up_if_the_run_did_not(self) -> None:
        """Clean up after an interrupt that kept the run's own hook from doing it."""
        if not self.is_asked or self._is_cleaned_up or not self._flow_run_id:
            return
        from tasks.steps.cleanup import clean_up_run  # noqa: PLC0415 - brings Prefect, imported by now

        self._is_cleaned_up = True
        print_failed_deletions(clean_up_run(UUID(self._flow_run_id), Keep()))

    def _end(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        is_ending = self._is_cleaned_up or time.monotonic() - self._asked_at < ENDING_SECONDS
        note = "Still cleaning up; this ends by itself." if is_ending else "Stopping and cleaning up."
        if not notify(note):
            say(note)
        if not is_ending:
            self._asked_at = time.monotonic()
            raise KeyboardInterrupt
