"""Output streams that never fail: full disks, closed pipes, closed streams and small character sets."""

from __future__ import annotations

import os
import pty
import re
import sys

import pytest

from flows.cli.display import show_progress
from flows.console import print_message, protected_output, show_starting
from tasks.progress import advance

MORE_THAN_A_BUFFER = "word " * 100_000


@pytest.fixture
def print_to(monkeypatch, tmp_path):
    """Return a function that prints a text to a stream, and returns what the user then sees on stderr."""

    def run(stream, text=MORE_THAN_A_BUFFER):
        with (tmp_path / "stderr").open("w") as stderr:
            monkeypatch.setattr(sys, "stdout", stream)
            monkeypatch.setattr(sys, "stderr", stderr)
            with protected_output():
                print(text)
        return (tmp_path / "stderr").read_text()

    return run


@pytest.mark.parametrize("text", ["word", MORE_THAN_A_BUFFER])
def test_full_disk_is_reported_once(print_to, text):
    with open("/dev/full", "w") as full:
        errors = print_to(full, text)
    assert errors == "The output is incomplete: standard output cannot be written (No space left on device).\n"


def test_closed_pipe_is_quiet(print_to):
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as pipe:
        assert print_to(pipe) == ""


def test_full_stderr_is_quiet(monkeypatch, tmp_path):
    with open("/dev/full", "w") as full, (tmp_path / "out").open("w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", full)
        with protected_output():
            print("word")
            print("word", file=sys.stderr)
    assert (tmp_path / "out").read_text() == "word\n"


def test_closed_streams_are_opened(monkeypatch):
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    with protected_output():
        print("word")
        print("word", file=sys.stderr)
        assert sys.stdin.read() == ""


def test_missing_characters_are_replaced(print_to, tmp_path):
    with (tmp_path / "out").open("w", encoding="ascii") as out:
        assert print_to(out, "naïve ☃") == ""
    assert (tmp_path / "out").read_text() == "na?ve ?\n"


def test_non_blocking_pipe_gets_everything(print_to):
    read, write = os.pipe()
    os.set_blocking(write, False)
    if not (reader := os.fork()):
        os.close(write)
        with open(read) as pipe:
            os._exit(0 if pipe.read() == MORE_THAN_A_BUFFER + "\n" else 1)
    os.close(read)
    with open(write, "w") as pipe:
        assert print_to(pipe) == ""
    assert os.waitpid(reader, 0)[1] == 0


@pytest.mark.parametrize(("display", "text"), [(show_starting, "starting"), (show_progress, "staged")])
def test_message_has_line_of_its_own(display, text, monkeypatch):
    """Also while a spinner or bars change on the terminal."""
    monkeypatch.setenv("TERM", "xterm")
    terminal, end = pty.openpty()
    shown = ""

    def read_until(expected):
        nonlocal shown
        while expected not in shown:
            shown += os.read(terminal, 65536).decode()

    with open(end, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        with display():
            advance("staged", total=2)
            read_until(text)
            print_message("No Azure is configured.")
            stderr.flush()
            read_until("configured.\r\n")
    os.close(terminal)
    line = re.sub(r"\x1b\[[\d;?]*\w", "", shown.partition("No Azure")[0]).split("\n")[-1].rpartition("\r")[2]
    assert line == ""
