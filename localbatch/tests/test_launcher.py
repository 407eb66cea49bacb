"""Programs that the launcher starts leave nothing behind."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from localbatch.processes.launcher import Child, Launcher
from localbatch.testing import wait_until

FLEEING = f"env -i {shutil.which('setsid')} {shutil.which('sleep')}"
"""Leaves its parent, its process group, its session and its environment behind."""


def sleepers(seconds):
    """Return the processes that sleep for a time that no other test uses."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cmdline").read_bytes().split(b"\0")[-2:-1] == [seconds.encode()]:
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@pytest.fixture
def seconds(request):
    return f"300.{os.getpid()}{abs(hash(request.node.name)) % 10**9}"


@pytest.fixture
def launcher():
    with closing(Launcher()) as launcher:
        yield launcher


def start(launcher, tmp_path, script, **environment):
    with Path(os.devnull).open("rb") as nothing, (tmp_path / "out").open("wb") as out:
        files = (nothing.fileno(), out.fileno(), out.fileno())
        return launcher.start(
            ["sh", "-c", script],
            environment={"PATH": os.environ["PATH"], **environment},
            directory=tmp_path,
            files=files,
        )


def scatter(seconds):
    """Return a script that starts sleepers of every kind, each from a process that ends at once."""
    return f"(sleep {seconds} &); (setsid sleep {seconds} &); (({FLEEING} {seconds} &) &)"


def test_program_has_arguments_and_exit_code(launcher, tmp_path):
    child = start(launcher, tmp_path, "echo $WORD in $(pwd); exit 7", WORD="x" * 100_000)
    assert child.wait() == 7
    assert (tmp_path / "out").read_text() == f"{'x' * 100_000} in {tmp_path}\n"


def test_invalid_program_is_an_error(launcher, tmp_path):
    options = {"environment": {"PATH": os.defpath}, "directory": tmp_path, "files": (0, 1, 2)}
    with pytest.raises(FileNotFoundError):
        launcher.start(["no-such-program"], **options).wait()
    for impossible in ([], ["a\0b"]):
        with pytest.raises(ValueError):  # noqa: PT011 - the sentence is Python's.
            launcher.start(impossible, **options).wait()


def test_program_hears_signals(launcher, tmp_path):
    child = start(launcher, tmp_path, "trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done")
    wait_until(lambda: (tmp_path / "out").read_text() == "ready\n")
    child.send_signal(signal.SIGTERM)
    assert child.wait() == 9


def test_late_signal_keeps_the_exit_code():
    control, supervisor = socket.socketpair()
    child = Child(control)
    supervisor.sendall(b'{"code": 9}')
    child.send_signal(signal.SIGTERM)
    supervisor.close()
    assert child.wait() == 9


def test_programs_receive_signals(launcher, tmp_path):
    start(launcher, tmp_path, "grep -E 'Sig(Ign|Cgt)' /proc/self/status").wait()
    ignored = int((tmp_path / "out").read_text().split()[1], 16)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        assert not ignored >> (number - 1) & 1


def test_orphans_end_with_their_program(launcher, tmp_path, seconds):
    child = start(launcher, tmp_path, f"{scatter(seconds)}; while [ ! -e enough ]; do sleep 0.01; done")
    wait_until(lambda: len(sleepers(seconds)) == 3)
    (tmp_path / "enough").touch()
    assert child.wait() == 0
    assert sleepers(seconds) == []


def test_killing_a_program_kills_its_orphans(launcher, tmp_path, seconds):
    child = start(launcher, tmp_path, f"{scatter(seconds)}; exec sleep {seconds}")
    wait_until(lambda: len(sleepers(seconds)) == 4)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    assert sleepers(seconds) == []


@pytest.mark.parametrize("shield", ["", "kill -9 $PPID; "], ids=["", "without its supervisor"])
def test_closing_launcher_ends_everything(tmp_path, seconds, shield):
    with closing(Launcher()) as launcher:
        child = start(launcher, tmp_path, f"{scatter(seconds)}; {shield}exec sleep {seconds}")
        wait_until(lambda: len(sleepers(seconds)) == 4)
    assert sleepers(seconds) == []
    assert child.wait() == -signal.SIGKILL


def test_programs_that_multiply_end_too(launcher, tmp_path, seconds):
    again = tmp_path / "again.sh"
    again.write_text(f"while :; do ({FLEEING} {seconds} &) ; sleep 0.01; done")
    child = start(launcher, tmp_path, f"(setsid sh {again} &); (setsid sh {again} &); exec sleep {seconds}")
    wait_until(lambda: len(sleepers(seconds)) >= 10)
    child.kill()
    child.wait()
    assert sleepers(seconds) == []


def test_everything_ends_when_the_server_is_killed(tmp_path, seconds):
    (tmp_path / "data" / "deep").mkdir(parents=True)
    server = f"""
import os, signal, pathlib
from localbatch.processes.launcher import Launcher
launcher = Launcher(remove=[pathlib.Path({str(tmp_path / "data")!r})])
script = {f"{scatter(seconds)}; exec sleep {seconds}"!r}
child = launcher.start(["sh", "-c", script], environment=os.environ, directory=pathlib.Path("/"), files=(0, 1, 2))
signal.pause()
"""
    process = subprocess.Popen([sys.executable, "-c", server])
    wait_until(lambda: len(sleepers(seconds)) == 4)
    process.kill()
    process.wait()
    wait_until(lambda: not sleepers(seconds) and not (tmp_path / "data").exists())
