"""Processes that outlive the server that started them, such as a flow run whose worker was killed (Linux only)."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Source: <linux/prctl.h>.
PR_SET_CHILD_SUBREAPER = 36

END_SECONDS = 5.0
POLL_SECONDS = 0.05


@contextmanager
def orphans_ended() -> Iterator[None]:
    """Become the parent of every orphan below this process meanwhile, and end all children at the end."""
    if sys.platform != "linux":
        yield
        return
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        _end_children()
        prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _end_children() -> None:
    kill_at = time.monotonic() + END_SECONDS
    told: set[int] = set()
    # The children of one that ends become ours.
    while children := _children():
        number = signal.SIGTERM if time.monotonic() < kill_at else signal.SIGKILL
        for child in children - told if number == signal.SIGTERM else children:
            told.add(child)
            with suppress(ProcessLookupError):
                os.kill(child, number)
        for child in children:
            with suppress(ChildProcessError):
                os.waitpid(child, os.WNOHANG)
        time.sleep(POLL_SECONDS)


def _children() -> set[int]:
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The program's name, in parentheses, may hold anything; the state and the parent's id stand behind it.
            if int(stat.read_text("utf-8", "replace").rpartition(")")[2].split()[1]) == os.getpid():
                found.add(int(stat.parent.name))
    return found
