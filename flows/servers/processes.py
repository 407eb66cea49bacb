"""The servers that a run or `make up` starts: a local Azure, a Prefect server that keeps the history, a worker.

Each is a process of its own session, so that a Ctrl-C at the terminal does not take it away before the cleanup, and
each ends with this process, however that ends.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from uuid import UUID

from typing_extensions import Self

from tasks.errors import ConfigurationError

# The first start in a virtual environment migrates a database, which took 15 s on two idle cores; later ones take 5 s.
START_SECONDS = 180.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.05
LAST_LINES = 5

# Asks the kernel to end a program when the program that started it ends, then becomes that program (Linux only).
TIE = """\
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 15)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Service:
    """A server process, started at once and waited for later, with what it says in a log file."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str],
        *,
        handles: Sequence[int] = (),
    ) -> None:
        self._name = name
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        tied = [sys.executable, "-c", TIE, *command] if sys.platform == "linux" else list(command)
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                tied,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,
                pass_fds=handles,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def wait_until(self, is_ready: Callable[[], bool]) -> None:
        """Wait until the server answers.

        Raises:
            ConfigurationError: It ended, or did not answer in time; the message has its last words.
        """
        give_up_at = time.monotonic() + START_SECONDS
        while not is_ready():
            if self._process.poll() is not None:
                raise ConfigurationError(f"{self._name} did not start: {self._last_words()} (see {self._log})")
            if time.monotonic() > give_up_at:
                raise ConfigurationError(f"{self._name} did not answer in {START_SECONDS:.0f} s (see {self._log})")
            time.sleep(POLL_SECONDS)

    def output(self) -> str:
        """What the server has said so far."""
        return self._log.read_text("utf-8", "replace")

    def end(self) -> str | None:
        """How the server ended by itself, as a sentence; None while it runs."""
        status = self._process.poll()
        if status is None:
            return None
        how = f"by signal {-status}" if status < 0 else f"with status {status}"
        return f"{self._name} ended {how}: {self._last_words()} (see {self._log})."

    def stop(self) -> None:
        """End the server and wait for its end."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _last_words(self) -> str:
        return " / ".join(self.output().strip().splitlines()[-LAST_LINES:]) or "it said nothing"


class LocalAzure(Service):
    """`localbatch serve` with any of its options, on the given ports where they are free; 0 is any."""

    def __init__(self, state: Path, *, port: int = 0, storage_port: int = 0, options: Sequence[str] = ()) -> None:
        serve = ["-m", "localbatch", "serve", "--state", str(state)]
        serve += ["--port", str(port), "--storage-port", str(storage_port), *options]
        super().__init__("The local Azure", [sys.executable, *serve], state / "localbatch.log", os.environ)

    def wait(self) -> dict[str, str]:
        """Wait until it serves; returns the settings that point to it."""
        self.wait_until(lambda: "\nready" in self.output())
        return dict(re.findall(r"^export (TOPN_\w+)=(\S+)$", self.output(), re.MULTILINE))


class PrefectServer(Service):
    """A Prefect server on the database in the state folder, on the given port where it is free; with its pages or not."""

    def __init__(self, state: Path, *, port: int = 0, pages: bool = False) -> None:
        # Taken here and handed on: between finding a free port and serving on it, somebody else could take it.
        address = _free_address(port)
        self.pages_url = f"http://127.0.0.1:{address.getsockname()[1]}"
        self.api_url = f"{self.pages_url}/api"
        # `PREFECT_HOME=.topn prefect server start` shows the same history later.
        inherited = prefect_environment(state)
        # The server has no use for the keys, and who reads its environment none either.
        environment = {name: value for name, value in inherited.items() if not name.startswith("TOPN_")} | {
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_UI_ENABLED": str(pages).lower(),
            # The pages would look for the API on port 4200 wherever they are.
            "PREFECT_UI_API_URL": self.api_url,
            # What links in notices begin with.
            **({"PREFECT_UI_URL": self.pages_url} if pages else {}),
        }
        command = [sys.executable, "-m", "flows.servers.prefect_server", "--fd", str(address.fileno())]
        with address:
            log = state / "prefect-server.log"
            super().__init__("The Prefect server", command, log, environment, handles=[address.fileno()])

    def wait(self) -> None:
        """Wait until it serves."""
        self.wait_until(lambda: _answers(f"{self.api_url}/health"))

    def wait_for_history(self, task_run_ids: Collection[UUID], give_up_seconds: float) -> bool:
        """Wait until the server has written down that these task runs have ended.

        A Prefect server records task runs some time after they ended, and forgets what it has not recorded when it
        is stopped.

        Returns:
            Whether it has.
        """
        query = {
            "task_runs": {
                "id": {"any_": [str(task_run_id) for task_run_id in task_run_ids]},
                "state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]}},
            }
        }
        request = urllib.request.Request(  # noqa: S310 - the address is our own
            f"{self.api_url}/task_runs/count", json.dumps(query).encode(), {"Content-Type": "application/json"}
        )
        give_up_at = time.monotonic() + give_up_seconds
        while time.monotonic() < give_up_at:
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                    if int(answer.read()) >= len(task_run_ids):
                        return True
            except (OSError, ValueError):
                # 503 means that its database is busy writing just that.
                pass
            time.sleep(POLL_SECONDS * 2)
        return False


class Worker(Service):
    """A Prefect worker of a work pool; its flow runs have this process's environment."""

    def __init__(self, state: Path, work_pool: str) -> None:
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", work_pool, "--name", "make-up"]
        super().__init__("The Prefect worker", command, state / "prefect-worker.log", os.environ)

    def wait(self) -> None:
        """Wait until it takes flow runs."""
        self.wait_until(lambda: " started!" in self.output())


def prefect_environment(state: Path) -> dict[str, str]:
    """Give this process's environment with Prefect's settings replaced by those that keep its files in the folder."""
    without = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return without | {"PREFECT_HOME": str(state), "DO_NOT_TRACK": "1"}


@contextmanager
def alone_in(state: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the state folder: two runs at once would share one database and one storage.

    Args:
        state: The folder.
        waiting: Called once if another run holds it.

    Raises:
        ConfigurationError: The folder cannot be written.
    """
    try:
        state.mkdir(parents=True, exist_ok=True)
        lock = (state / "lock").open("w")
    except OSError as error:
        raise ConfigurationError(
            f"The state folder {state} cannot be written ({error.strerror}): set TOPN_STATE to another."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _free_address(wanted_port: int) -> socket.socket:
    """Listen on a port, or on another where that is taken; who connects waits for the server."""
    try:
        return _listening(wanted_port)
    except OSError:
        return _listening(0)


def _listening(port: int) -> socket.socket:
    address = socket.socket()
    # Connections of a server that has ended may linger there; the next one can listen all the same.
    address.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        address.bind(("127.0.0.1", port))
        # Two may be bound to a port, and one listens.
        address.listen()
    except OSError:
        address.close()
        raise
    return address


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - the address is our own
            return bool(answer.status == 200)  # noqa: PLR2004
    except OSError:
        return False
