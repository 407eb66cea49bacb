"""Handling of the signals that stop a run."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from flows.cleanup import RunCleanup
from flows.console import print_message
from tasks.progress import notify

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# A thread cannot raise an exception in the main thread, but a signal handler runs there.
FAILURE_SIGNAL = signal.SIGUSR1

# A stopping run starts its cleanup within this time, once its threads have finished their current requests.
MAX_STOPPING_SECONDS = 15.0


class Interruption(RunCleanup):
    """A handler of stop signals that raises `KeyboardInterrupt`, unless the run is already stopping.

    The exception may be raised inside Prefect's code, which may report it as an error of its own or swallow it.
    Therefore a later signal raises it again, and `clean_up_if_needed` deletes what the run's hook did not.
    """

    def __init__(self) -> None:
        super().__init__()
        self._requested_at = float("-inf")
        # Python writes the number of every signal to this pipe, even if Prefect's handler receives the signal:
        # https://docs.python.org/3/library/signal.html#signal.set_wakeup_fd
        self._read_fd, self._write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        os.set_blocking(self._write_fd, False)
        self._is_requested = False
        self.failure = ""

    @contextmanager
    def handle_signals(self) -> Iterator[Interruption]:
        """Handle the stop signals while the block executes, except those that this process ignores.

        `nohup` ignores SIGHUP, for example, and a shell ignores SIGINT for a script's background commands.
        """
        ignored = {name for name in STOP_SIGNALS if signal.getsignal(name) is signal.SIG_IGN}
        # Prefect handles SIGTERM while a flow runs, even if it was ignored. It does not receive a blocked signal.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ignored)
        before = {name: signal.signal(name, self._on_signal) for name in STOP_SIGNALS if name not in ignored}
        before[FAILURE_SIGNAL] = signal.signal(FAILURE_SIGNAL, self._on_signal)
        signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        try:
            yield self
        finally:
            signal.set_wakeup_fd(-1)
            for name, handler in before.items():
                signal.signal(name, handler)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            os.close(self._read_fd)
            os.close(self._write_fd)

    @property
    def is_requested(self) -> bool:
        """Whether a stop signal has arrived."""
        try:
            numbers = os.read(self._read_fd, 4096)
        except BlockingIOError:
            numbers = b""
        self._is_requested = self._is_requested or any(number in STOP_SIGNALS for number in numbers)
        return self._is_requested

    def fail(self, failure: str) -> None:
        """End the run from another thread, because something that it needs has failed."""
        self.failure = failure
        os.kill(os.getpid(), FAILURE_SIGNAL)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        if number == FAILURE_SIGNAL and not self.failure:
            return
        is_stopping = self.is_cleaning_up or time.monotonic() - self._requested_at < MAX_STOPPING_SECONDS
        note = "Still cleaning up. The run stops when this is done." if is_stopping else "Stopping and cleaning up."
        if not notify(note):
            print_message(note)
        if not is_stopping:
            self._requested_at = time.monotonic()
            raise KeyboardInterrupt
