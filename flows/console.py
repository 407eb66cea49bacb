"""Messages and questions on the terminal, and output streams that never fail."""

from __future__ import annotations

import errno
import io
import json
import os
import select
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.text import Text

from tasks.redaction import redact
from tasks.text import printable_lines

STANDARD_STREAMS = ("stdin", "stdout", "stderr")

# The consoles with a display that changes, such as a bar. Only they can print lines above it.
_live: list[Console] = []


def terminal_text(text: str, style: str = "") -> Text:
    """Return a text as a terminal shows it: no control characters, and no markup or emoji codes that rich interprets."""
    return Text(printable_lines(text), style)


def print_message(message: str) -> None:
    """Print a message to stderr, with secrets redacted. Results go to stdout."""
    console = _live[-1] if _live else Console(stderr=True, highlight=False)
    console.print(terminal_text(redact(message)), soft_wrap=True)


def print_failed_deletions(remaining: Mapping[str, str]) -> None:
    """Print to stderr what could not be deleted, with the reasons."""
    for name, reason in remaining.items():
        print_message(f"Could not delete {name}: {reason}")


def print_result(text: str) -> None:
    """Print a line of a result to stdout."""
    Console(highlight=False).print(terminal_text(text), soft_wrap=True)


def print_json_document(document: Mapping[str, Any]) -> None:
    """Print a JSON object to stdout."""
    json.dump(document, sys.stdout)
    sys.stdout.write("\n")


@contextmanager
def live_console() -> Iterator[Console]:
    """Yield a console on stderr for a display that changes. Meanwhile, messages are printed above the display."""
    console = Console(stderr=True, highlight=False)
    _live.append(console)
    try:
        yield console
    finally:
        _live.remove(console)


@contextmanager
def show_starting() -> Iterator[None]:
    """Show a spinner on a terminal until the first progress arrives."""
    with live_console() as console:
        if not console.is_terminal:
            yield
            return
        with console.status("starting"):
            yield


def ask(question: str, read: Callable[[], str] = input) -> bool:
    """Return the answer to a yes-or-no question. The default is yes, as in the Azure Batch tutorial."""
    Console(stderr=True, highlight=False).print(terminal_text(f"{question} [Y/n] "), end="")
    try:
        return read().strip().lower() not in {"n", "no"}
    except EOFError:
        return True


@contextmanager
def protected_output() -> Iterator[None]:
    """Let no write to stdout or stderr fail in this process, for example to a full disk or to a pipe that was closed.

    A failed write must change neither the work nor the exit status. Characters that the encoding does not have become
    `?`. At the end, a message says that the output is incomplete, unless its reader closed the pipe.
    """
    _open_closed_streams()
    stdout, stderr = _Output("stdout"), _Output("stderr")
    try:
        yield
    finally:
        for output in (stdout, stderr):
            output.flush()
        error = stdout.descriptor.error
        if error is not None and error.errno != errno.EPIPE:
            print_message(f"The output is incomplete: standard output cannot be written ({error.strerror}).")
            stderr.flush()


class _Output(io.TextIOWrapper):
    """A replacement of `sys.stdout` or `sys.stderr` that never raises an error."""

    def __init__(self, name: str) -> None:
        stream: io.TextIOWrapper = getattr(sys, name)
        self.descriptor = _Descriptor(stream.fileno())
        super().__init__(
            io.BufferedWriter(self.descriptor),
            encoding=stream.encoding,
            errors="replace",
            line_buffering=stream.line_buffering,
        )
        setattr(sys, name, self)


class _Descriptor(io.RawIOBase):
    """A file descriptor that drops everything after the first write error."""

    def __init__(self, number: int) -> None:
        self._number = number
        self.error: OSError | None = None

    def fileno(self) -> int:
        """Return the number of the descriptor."""
        return self._number

    def isatty(self) -> bool:
        """Whether this is a terminal."""
        return os.isatty(self._number)

    def writable(self) -> bool:
        """Whether this can be written."""
        return True

    def write(self, data: Any, /) -> int:
        """Write at least a part of the data, and return its size."""
        while self.error is None:
            try:
                return os.write(self._number, data)
            except BlockingIOError:
                select.select([], [self._number], [])
            except OSError as error:
                self.error = error
        return memoryview(data).nbytes


def _open_closed_streams() -> None:
    """Open the standard streams that are closed, or else the next file that is opened would get their output."""
    for name in STANDARD_STREAMS:
        if getattr(sys, name) is None:
            # Python uses the lowest free descriptor, which is that of the stream.
            opened = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(opened, "r" if name == "stdin" else "w", encoding="utf-8", closefd=False))  # noqa: SIM115
