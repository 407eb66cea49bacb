"""Starts processes so that none outlives the local Azure, even if the server is killed.

The launcher is a child process that starts all programs. For each program it forks a supervisor, which adopts the
orphans of the program. The supervisor kills them when the program ends, on request, or when the server is gone. If a
supervisor is killed, the launcher adopts its orphans. The launcher ends when the server closes its socket or dies, and
kills everything else first.

Adopting orphans needs Linux (PR_SET_CHILD_SUBREAPER, prctl(2)). Elsewhere only the process group of a program is killed.

This file is also the program of the launcher, which runs without the packages of the server.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

PR_SET_CHILD_SUBREAPER = 36
REAP_SECONDS = 0.001
# A terminal or a shell sends these to the whole group. Programs receive them from the server only.
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP)


class Child:
    """A program that was started. Thread-safe, but only one thread may wait."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control

    def wait(self, timeout: float | None = None) -> int:
        """Wait until the program and its orphans have ended, and return the exit code, -N for signal N.

        Args:
            timeout: Maximum number of seconds to wait.

        Raises:
            TimeoutError: It did not end in time.
            OSError: It could not be started.
            ValueError: The arguments are empty or invalid.
        """
        self._control.settimeout(timeout)
        message = b""
        # A reset means that the supervisor ended before it read the last signal. Its message arrived before.
        with suppress(ConnectionResetError):
            while part := self._control.recv(1 << 16):
                message += part
        self._control.close()
        answer = json.loads(message or b"{}")
        if "os_error" in answer:
            raise OSError(*answer["os_error"])
        if "value_error" in answer:
            raise ValueError(answer["value_error"])
        return int(answer.get("code", -signal.SIGKILL))  # Without an answer, the supervisor itself was killed.

    def send_signal(self, number: int) -> None:
        """Send a signal to the program, if it still runs."""
        with suppress(OSError):
            self._control.sendall(bytes([number]))

    def kill(self) -> None:
        """Kill the program and its descendants. `wait` returns when they have ended."""
        with suppress(OSError):
            self._control.shutdown(socket.SHUT_WR)


class Launcher:
    """The server's end of the launcher. Thread-safe."""

    def __init__(
        self, *, remove: Iterable[Path] = (), keep_open: Iterable[int] = (), in_terminal: bool = False
    ) -> None:
        """Start the launcher.

        Args:
            remove: Folders that are deleted at the end, even if the server is killed.
            keep_open: File descriptors that stay open until then.
            in_terminal: Whether programs stay in the process group of this one, with its terminal. Otherwise each has a
                session of its own.
        """
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__, str(int(in_terminal)), *map(str, remove)],
                stdin=theirs.fileno(),
                pass_fds=tuple(keep_open),
                start_new_session=not in_terminal,
            )

    def start(
        self, arguments: Sequence[str], *, environment: Mapping[str, str], directory: Path, files: Sequence[int]
    ) -> Child:
        """Start a program. Errors are raised by `wait`. The program is killed when its Child is garbage-collected.

        Args:
            arguments: The program and its arguments.
            environment: Its environment, whose PATH is also used to find the program.
            directory: Its working directory.
            files: File descriptors for its standard input, output and error.

        Raises:
            OSError: The launcher is gone.
        """
        order = {"arguments": arguments, "environment": dict(environment), "directory": str(directory)}
        control, theirs = socket.socketpair()
        reading, writing = os.pipe()
        with open(writing, "w") as pipe:
            try:
                with self._lock:
                    socket.send_fds(self._socket, [b"+"], [theirs.fileno(), reading, *files])
            except OSError:
                control.close()
                raise
            finally:
                theirs.close()
                os.close(reading)
            json.dump(order, pipe)
        return Child(control)

    def close(self) -> None:
        """Kill everything, delete the folders in `remove`, and return when that is done."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._process.wait()


# The launcher process.


def main(in_terminal: str, *remove: str) -> None:
    """Start programs until the server is gone, then kill and delete everything."""
    for number in FORWARDED:
        # Unlike SIG_IGN, a handler is not inherited by the programs. A signal that is ignored stays ignored, as with nohup.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda _number, _frame: None)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    if in_terminal == "0":
        # Other users of the machine must not read the files of the storage account and of Batch tasks.
        os.umask(0o077)
    _adopt()
    server = socket.socket(fileno=sys.stdin.fileno())
    while (received := socket.recv_fds(server, 1, 5))[0]:
        control, order, *files = received[1]
        with open(order) as pipe, suppress(ValueError):  # The server may die in the middle of an order.
            asked = json.load(pipe)
            if not os.fork():
                try:
                    server.close()
                    _supervise(asked, socket.socket(fileno=control), files, own_session=in_terminal == "0")
                finally:
                    os._exit(0)
        for file in (control, *files):
            os.close(file)
    _end_children()
    for directory in remove:
        shutil.rmtree(directory, ignore_errors=True)


def _supervise(asked: Mapping[str, Any], control: socket.socket, files: Sequence[int], *, own_session: bool) -> None:
    """Run a program, kill its orphans, and report its end to the server."""
    has_adopted = _adopt()
    answer: dict[str, object]
    try:
        stdin, stdout, stderr = files
        awake = _be_woken()
        program = subprocess.Popen(
            asked["arguments"],
            cwd=asked["directory"],
            env=asked["environment"],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=own_session,
        )
        for file in files:
            os.close(file)
        answer = {"code": _attend(program.pid, control, awake)}
        if own_session and not has_adopted:
            with suppress(OSError):
                os.killpg(program.pid, signal.SIGKILL)
    except OSError as error:
        answer = {"os_error": [error.errno, error.strerror, error.filename]}
    except (ValueError, IndexError) as error:
        answer = {"value_error": str(error)}
    _end_children()
    with suppress(OSError):
        control.sendall(json.dumps(answer).encode())


def _be_woken() -> int:
    """Return a file descriptor that is readable after each SIGCHLD."""
    awake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    return awake


def _attend(program: int, control: socket.socket, awake: int) -> int:
    """Forward signals to a program, kill it if the server requests it or is gone, and return its exit code."""
    readable: list[int | socket.socket] = [control, awake]
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == program:
            return os.waitstatus_to_exitcode(status)
        if pid:
            continue  # An adopted orphan.
        ready = select.select(readable, [], [])[0]
        if awake in ready:
            os.read(awake, 1 << 10)
        if control in ready:
            numbers = control.recv(1 << 10)
            for number in numbers or [signal.SIGKILL]:
                os.kill(program, number)
            if not numbers:
                readable.remove(control)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def _adopt() -> bool:
    """Become the parent of orphaned descendants. Return False if the system cannot do that."""
    if sys.platform != "linux":
        return False
    _libc().prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    return True


def _end_children() -> None:
    """Kill every child and every orphan that it leaves."""
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        children = _children()
        if children and not sum(map(_kill, children)):
            return  # Processes of another user cannot be killed.
        time.sleep(REAP_SECONDS)


def _children() -> list[int]:
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The name of the program may contain parentheses and spaces. State and parent follow it: proc_pid_stat(5).
            if int(file.read_bytes().rpartition(b")")[2].split()[1]) == os.getpid():
                found.append(int(file.parent.name))
    return found


def _kill(pid: int) -> bool:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


if __name__ == "__main__":
    main(*sys.argv[1:])
