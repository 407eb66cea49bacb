"""Orphaned processes, which outlive the server that started them, such as a flow run whose worker was killed.

Only Linux supports this.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Source: https://man7.org/linux/man-pages/man2/PR_SET_CHILD_SUBREAPER.2const.html
PR_SET_CHILD_SUBREAPER = 36

TERMINATION_TIMEOUT_SECONDS = 5.0
POLL_SECONDS = 0.05


@contextmanager
def orphans_terminated() -> Iterator[None]:
    """Adopt the orphans among all descendants while the block executes, then terminate all children."""
    if sys.platform != "linux":
        yield
        return
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        _terminate_children()
        prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _terminate_children() -> None:
    kill_at = time.monotonic() + TERMINATION_TIMEOUT_SECONDS
    signaled: set[int] = set()
    # When a child exits, its children become children of this process.
    while children := _children():
        signal_number = signal.SIGTERM if time.monotonic() < kill_at else signal.SIGKILL
        for child in children - signaled if signal_number == signal.SIGTERM else children:
            signaled.add(child)
            with suppress(ProcessLookupError):
                os.kill(child, signal_number)
        for child in children:
            with suppress(ChildProcessError):
                os.waitpid(child, os.WNOHANG)
        time.sleep(POLL_SECONDS)


def _children() -> set[int]:
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The program's name, in parentheses, may contain any characters. State and parent id follow it.
            if int(stat.read_text("utf-8", "replace").rpartition(")")[2].split()[1]) == os.getpid():
                found.add(int(stat.parent.name))
    return found
