"""Starts processes so that none outlives the local Azure, whatever it does and however the local Azure ends.

A child process, the launcher, starts everything else: for each program it forks a supervisor, which adopts whatever
the program leaves behind and kills it when the program ends, when it is told to, or when the server is gone. What
a supervisor that was killed leaves behind, the launcher adopts; it ends when the server closes its socket or dies,
and takes everything with it.

Adoption is Linux's (PR_SET_CHILD_SUBREAPER). Elsewhere a program ends with its process group alone.

This file is also the launcher's program, which runs without the packages of the server.
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
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP)
"""Signals that a terminal or a shell sends to everything; who is started here is told by the server alone."""


class Child:
    """A program that was asked for. Safe to use from any thread, but only one may wait."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code once nothing of the program is left, negative for a signal as subprocess has it.

        Args:
            timeout: Seconds to wait at most.

        Raises:
            TimeoutError: It has not ended in time.
            OSError: It could not be started.
            ValueError: It has no program or no possible arguments.
        """
        self._control.settimeout(timeout)
        said = b""
        # A reset: the supervisor ended before it had read the last signal; what it said came first.
        with suppress(ConnectionResetError):
            while part := self._control.recv(1 << 16):
                said += part
        self._control.close()
        answer = json.loads(said or b"{}")
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
        """Kill the program and all that comes from it; `wait` returns when that is done."""
        with suppress(OSError):
            self._control.shutdown(socket.SHUT_WR)


class Launcher:
    """The server's end of the launcher. Safe to use from any thread."""

    def __init__(
        self, *, remove: Iterable[Path] = (), keep_open: Iterable[int] = (), in_terminal: bool = False
    ) -> None:
        """Start the launcher.

        Args:
            remove: Directories that are deleted at the end, however it comes.
            keep_open: File descriptors that stay open until then.
            in_terminal: Whether programs stay in the process group of this one, and hear from its terminal, rather
                than have sessions of their own.
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
        """Start a program; whether that succeeded, `wait` tells. It is killed when its Child is forgotten.

        Args:
            arguments: The program and its arguments.
            environment: All of its environment; the program is looked for on the PATH there.
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
        """Kill everything that is left, delete what is to be deleted, and return when that is done."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._process.wait()


# The other end.


def main(in_terminal: str, *remove: str) -> None:
    """Start what is asked for until the server is gone, then end and delete everything."""
    for number in FORWARDED:
        # Unlike SIG_IGN, a handler is not inherited by the programs.
        signal.signal(number, lambda _number, _frame: None)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    _adopt()
    server = socket.socket(fileno=sys.stdin.fileno())
    while (received := socket.recv_fds(server, 1, 5))[0]:
        control, order, *files = received[1]
        with open(order) as pipe, suppress(ValueError):  # A server that dies over an order wants nothing any more.
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
    """Run a program to its end, end what it leaves behind, and tell the server how it ended."""
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
    """Return a file that can be read after each SIGCHLD."""
    awake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    return awake


def _attend(program: int, control: socket.socket, awake: int) -> int:
    """Pass signals on to a program, or kill it when the server wants that or is gone; return its exit code."""
    heard: list[int | socket.socket] = [control, awake]
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == program:
            return os.waitstatus_to_exitcode(status)
        if pid:
            continue  # One that was adopted.
        ready = select.select(heard, [], [])[0]
        if awake in ready:
            os.read(awake, 1 << 10)
        if control in ready:
            numbers = control.recv(1 << 10)
            for number in numbers or [signal.SIGKILL]:
                os.kill(program, number)
            if not numbers:
                heard.remove(control)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def _adopt() -> bool:
    """Have the orphans among our descendants become our children; return whether this system can do that."""
    if sys.platform != "linux":
        return False
    _libc().prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    return True


def _end_children() -> None:
    """Kill every child; what a child leaves behind becomes ours, until nothing is left."""
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        children = _children()
        if children and not sum(map(_kill, children)):
            return  # Whoever became another user cannot be killed.
        time.sleep(REAP_SECONDS)


def _children() -> list[int]:
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # Behind the name of the program, which may have any letter: the state, then the parent.
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
