"""Ends every process of a local Azure when the local Azure ends, however it ends.

A child process in a session of its own holds the reading end of a pipe from the server, which writes `+<group>` for
each process group it starts and `-<group>` for each that ended. When the pipe reaches its end, because the server
closed it or because it died, what is left is killed, along with processes that left their group but still carry a
marker in their environment.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


class Reaper:
    """The server's end of the pipe. Safe to use from any thread."""

    def __init__(self, *markers: str) -> None:
        """Start the child.

        Args:
            markers: Beginnings of `NAME=value` that only our processes have in their environment.
        """
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, *markers], stdin=subprocess.PIPE, start_new_session=True
        )

    def started(self, group: int) -> None:
        """Note that a process group exists."""
        self._tell(f"+{group}\n")

    def ended(self, group: int) -> None:
        """Kill what is left of a process group whose leader has ended, and forget it."""
        kill_group(group)
        self._tell(f"-{group}\n")

    def close(self) -> None:
        """Kill every process that is left, and return when that is done."""
        with self._lock:
            if self._process.stdin and not self._process.stdin.closed:
                self._process.stdin.close()
        self._process.wait()

    def _tell(self, line: str) -> None:
        with self._lock, suppress(ValueError, BrokenPipeError):  # Closed: everything is being killed anyway.
            if self._process.stdin:
                self._process.stdin.write(line.encode())
                self._process.stdin.flush()


def kill_group(group: int) -> None:
    """Kill a process group, if there is one."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def find_marked(markers: Iterable[bytes]) -> list[int]:
    """Return the ids of the processes whose environment has a marker; where there is no /proc, none."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            variables = (entry / "environ").read_bytes().split(b"\0")
            if any(variable.startswith(marker) for variable in variables for marker in markers):
                found.append(int(entry.name))
    return found


def main() -> None:
    """Read the pipe to its end, then kill."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
    for group in groups:
        kill_group(group)
    markers = [os.fsencode(marker) for marker in sys.argv[1:]]
    for pid in find_marked(markers):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
