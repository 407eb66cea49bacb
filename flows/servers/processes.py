"""The servers that a run or `make up` starts: a local Azure, a Prefect server and a worker.

Each is a process in its own session, so that Ctrl-C in the terminal does not stop it before the cleanup. On Linux,
each stops when this process exits, even if this process is killed.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import UUID

from flows.servers.state import open_state_file
from tasks.errors import ConfigurationError

# The first start in a virtual environment migrates a database, which took 15 s on two idle cores. Later ones take 5 s.
START_TIMEOUT_SECONDS = 180
STOP_TIMEOUT_SECONDS = 20.0
POLL_SECONDS = 0.05
MAX_QUOTED_LOG_LINES = 5
PASSWORD_BYTES = 16

# Prepares the signals of a server, then executes the given command. The first argument lists the signals that stop the
# server, even if this process ignores them. On Linux, the first of them is sent when this process exits:
# https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html
# Another signal that this process ignores is blocked, because servers install handlers for signals that are ignored.
RUN_SERVER = """\
import ctypes, os, signal, sys
stopping = [int(number) for number in sys.argv[1].split(",")]
for number in stopping:
    signal.signal(number, signal.SIG_DFL)
others = [signal.SIGHUP, signal.SIGINT]
signal.pthread_sigmask(signal.SIG_SETMASK, [other for other in others if signal.getsignal(other) == signal.SIG_IGN])
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, stopping[0])
os.execv(sys.argv[2], sys.argv[2:])
"""

# Our own servers are not behind a proxy.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Service:
    """A server process that logs to a file. The constructor starts it and does not wait until it is ready.

    It runs a Python module with arguments, and gets its environment from `child_environment`.
    """

    # The signals that stop the server, even if this process ignores them.
    stop_signals: tuple[signal.Signals, ...] = (signal.SIGTERM,)

    def __init__(
        self,
        name: str,
        module: Sequence[str],
        log: Path,
        environment: Mapping[str, str],
        *,
        inherited_fds: Sequence[int] = (),
    ) -> None:
        self._name = name
        self._log = log
        stop_signals = ",".join(str(int(number)) for number in self.stop_signals)
        with open_state_file(log.parent, log.name, "wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", RUN_SERVER, stop_signals, *python_command(*module)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,
                pass_fds=inherited_fds,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def check(self) -> None:
        """Check that the server runs.

        Raises:
            ConfigurationError: The server exited. The message quotes the end of its log.
        """
        if self._process.poll() is not None:
            raise ConfigurationError(f"{self._name} did not start: {self._log_tail()} (see `{self._log}`)")

    def wait_until(self, is_ready: Callable[[], bool]) -> None:
        """Wait until the server is ready.

        Raises:
            ConfigurationError: The server exited, or was not ready in time. The message quotes the end of its log.
        """
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not is_ready():
            self.check()
            if time.monotonic() > deadline:
                raise ConfigurationError(f"{self._name} did not start in {START_TIMEOUT_SECONDS} s (see `{self._log}`)")
            time.sleep(POLL_SECONDS)

    def output(self) -> str:
        """Return the contents of the log so far."""
        return self._log.read_text("utf-8", "replace")

    def exit_message(self) -> str | None:
        """Return a message about the exit of the server, or None while it runs."""
        status = self._process.poll()
        if status is None:
            return None
        reason = f"by signal {-status}" if status < 0 else f"with exit code {status}"
        return f"{self._name} ended {reason}: {self._log_tail()} (see `{self._log}`)."

    def stop(self) -> None:
        """Stop the server and wait until it has exited. Kill it after a timeout."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _log_tail(self) -> str:
        # The local Azure prints its keys in lines to export.
        lines = [line for line in self.output().strip().splitlines() if not line.startswith("export ")]
        return " / ".join(lines[-MAX_QUOTED_LOG_LINES:]) or "its log is empty"


class LocalAzure(Service):
    """A `localbatch serve` process on the given ports, or on others if these are taken. 0 means any free port."""

    def __init__(self, state: Path, *, port: int = 0, storage_port: int = 0, options: Sequence[str] = ()) -> None:
        serve = ["localbatch", "serve", "--state", str(state)]
        serve += ["--port", str(port), "--storage-port", str(storage_port), *options]
        # It does not need the password of the Prefect server.
        environment = {name: value for name, value in child_environment().items() if not name.startswith("PREFECT_")}
        super().__init__("The local Azure", serve, state / "localbatch.log", environment)

    def check(self) -> None:
        """Check that the process runs.

        Raises:
            ConfigurationError: `localbatch` or Azurite is not installed, or the process ended.
        """
        # A checkout contains a folder of this name, which Python takes for a package without a file.
        localbatch = find_spec("localbatch")
        if localbatch is None or localbatch.origin is None:
            raise ConfigurationError(
                "No Azure is configured, and the local Azure is not installed. Set TOPN_BATCH_ENDPOINT and the other TOPN_ "
                "settings, or run `pip install 'topn[local]'` and `localbatch install`."
            )
        super().check()

    def wait(self) -> dict[str, str]:
        """Wait until the accounts are ready, and return the settings that point to them."""
        self.wait_until(lambda: "\nready" in self.output())
        return dict(re.findall(r"^export (TOPN_\w+)=(\S+)$", self.output(), re.MULTILINE))


class PrefectServer(Service):
    """A Prefect server with its database in the state folder, on the given port or another if that is taken.

    Its API demands a password, because other users of the machine can reach the port.
    """

    def __init__(self, state: Path, *, port: int = 0, pages: bool = False, password: str | None = None) -> None:
        """Start the server.

        Args:
            state: The state folder.
            port: The preferred port.
            pages: Whether to serve Prefect's UI.
            password: The password of the API; by default a random one.
        """
        # The server inherits this socket. Another process could take the port if the server opened it later.
        listener = _listen_on_free_port(port)
        self.pages_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.api_url = f"{self.pages_url}/api"
        self.password = password or f"topn:{secrets.token_hex(PASSWORD_BYTES)}"
        # `PREFECT_HOME=.topn prefect server start` shows the same history later.
        inherited = prefect_environment(state)
        # The server does not need the account keys, so keep them out of its environment.
        environment = {name: value for name, value in inherited.items() if not name.startswith("TOPN_")} | {
            "PREFECT_SERVER_API_AUTH_STRING": self.password,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_UI_ENABLED": str(pages).lower(),
            # Thousands of names of input files are more than the default limit of the parameters of a run.
            "PREFECT_SERVER_API_MAX_PARAMETER_SIZE": "0",
            # By default, the UI expects the API on port 4200.
            "PREFECT_UI_API_URL": self.api_url,
            # The base URL of links in notices.
            **({"PREFECT_UI_URL": self.pages_url} if pages else {}),
        }
        serve = ["flows.servers.prefect_server", "--fd", str(listener.fileno())]
        with listener:
            log = state / "prefect-server.log"
            super().__init__("The Prefect server", serve, log, environment, inherited_fds=[listener.fileno()])

    @property
    def client_environment(self) -> dict[str, str]:
        """The variables with which a Prefect client uses this server."""
        return {"PREFECT_API_URL": self.api_url, "PREFECT_API_AUTH_STRING": self.password}

    def wait(self) -> None:
        """Wait until the API is ready."""
        self.wait_until(lambda: _responds(f"{self.api_url}/health"))

    def wait_for_history(self, task_run_ids: Collection[UUID], timeout_seconds: float) -> bool:
        """Wait until the server has recorded the final states of these task runs.

        A Prefect server records task runs some time after they end, and loses unrecorded ones when it stops.

        Returns:
            False if the timeout passed first.
        """
        query = {
            "task_runs": {
                "id": {"any_": [str(task_run_id) for task_run_id in task_run_ids]},
                "state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]}},
            }
        }
        credentials = base64.b64encode(self.password.encode()).decode()
        headers = {"Content-Type": "application/json", "Authorization": f"Basic {credentials}"}
        request = urllib.request.Request(  # noqa: S310 - the URL is our own
            f"{self.api_url}/task_runs/count", json.dumps(query).encode(), headers
        )
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            try:
                with _OPENER.open(request, timeout=10) as response:
                    if int(response.read()) >= len(task_run_ids):
                        return True
            except (OSError, ValueError):
                # The server returns 503 while its database is busy recording task runs.
                pass
            time.sleep(POLL_SECONDS * 2)
        return False


class Worker(Service):
    """A Prefect worker of a work pool. Its flow runs inherit the environment of this process."""

    # On SIGTERM, a worker sends SIGINT to itself.
    stop_signals = (signal.SIGTERM, signal.SIGINT)

    def __init__(self, state: Path, work_pool: str) -> None:
        start = ["prefect", "worker", "start", "--pool", work_pool, "--name", "make-up"]
        super().__init__("The Prefect worker", start, state / "prefect-worker.log", child_environment())

    def wait(self) -> None:
        """Wait until the worker accepts flow runs."""
        self.wait_until(lambda: " started!" in self.output())


def python_command(*module: str) -> list[str]:
    """Return the command that runs a Python module without importing from the current folder."""
    return [sys.executable, "-P", "-m", *module]


def child_environment() -> dict[str, str]:
    """Return the environment of this process for children that run `python_command`.

    They and their own children import nothing from PYTHONPATH or the current folder, where users may have a file named
    `random.py` or a package named `tasks`. Their output is UTF-8, whatever the terminal of this process uses.
    """
    removed = {"PYTHONPATH", "PYTHONIOENCODING"}
    environment = {name: value for name, value in os.environ.items() if name not in removed}
    return environment | {"PYTHONSAFEPATH": "1", "PYTHONUTF8": "1"}


def prefect_environment(state: Path) -> dict[str, str]:
    """Return the environment of a child without Prefect settings, and with `PREFECT_HOME` set to `state`."""
    environment = {name: value for name, value in child_environment().items() if not name.startswith("PREFECT_")}
    return environment | {"PREFECT_HOME": str(state), "DO_NOT_TRACK": "1"}


@contextmanager
def state_folder_lock(state: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of the state folder, because concurrent runs must not share its database and storage.

    Args:
        state: The state folder.
        waiting: Called once if another run holds the lock.

    Raises:
        ConfigurationError: The folder cannot be written.
    """
    with open_state_file(state, "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _listen_on_free_port(preferred_port: int) -> socket.socket:
    """Listen on a port, or on another if that is taken. Clients can connect before the server accepts."""
    try:
        return _listen(preferred_port)
    except OSError:
        return _listen(0)


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    # Allow the port to be reused while connections of an earlier server are in TIME_WAIT.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        # With SO_REUSEADDR, two sockets can bind to one port, but only one can listen.
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def _responds(url: str) -> bool:
    try:
        with _OPENER.open(url, timeout=5) as response:
            return bool(response.status == 200)  # noqa: PLR2004
    except OSError:
        return False
