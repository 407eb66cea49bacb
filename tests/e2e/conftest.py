"""Fixtures for the `topn` command as a process, and one `make up` that many tests share."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from contextlib import ExitStack, suppress

import pytest
from flow_run_support import FlowRuns
from up_support import COMMAND, USUAL_PORTS, Up, make_checkout


class TopnProcess:
    """Runs `topn` as a process in the current folder, with `environment` added to `os.environ`."""

    def __init__(self, **environment):
        self.environment = environment

    def __call__(self, *arguments, timeout=120, **variables):
        return subprocess.run(
            [*COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=self.environment_with(variables),
            check=False,
        )

    def start(self, *arguments, **variables):
        return subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment_with(variables),
            start_new_session=True,
        )

    def json(self, *arguments, status=0, **variables):
        """Run `topn run --json` and return the document that it prints."""
        done = self("run", "--json", *arguments, **variables)
        assert done.returncode == status, done.stderr
        return json.loads(done.stdout)

    def environment_with(self, variables):
        return {**os.environ, "PYTHONWARNINGS": "error::ResourceWarning", **self.environment, **variables}


@pytest.fixture
def topn(local_azure, prefect_api, tmp_path):
    """`topn` on the servers of the tests, with a new state folder."""
    return TopnProcess(**local_azure.environment, PREFECT_API_URL=prefect_api, TOPN_STATE=str(tmp_path / "state"))


@pytest.fixture
def topn_without_prefect(local_azure, tmp_path):
    """`topn` on the local Azure of the tests, which starts a Prefect server of its own."""
    return TopnProcess(**local_azure.environment, TOPN_STATE=str(tmp_path / "state"), HOME=str(tmp_path))


@pytest.fixture
def topn_alone(tmp_path):
    """`topn` without configuration and with an empty home folder, so that it starts its own servers.

    Only a password is set, which belongs to another Prefect server.
    """
    home = tmp_path / "home"
    home.mkdir()
    return TopnProcess(HOME=str(home), TOPN_STATE=str(tmp_path / "state"))


@pytest.fixture(scope="session")
def up(tmp_path_factory):
    """A running `make up` on a machine whose default ports are in use.

    Tests that use it have the mark `xdist_group("up")`, so that one process runs all of them.
    """
    folder = tmp_path_factory.mktemp("up")
    with ExitStack() as stack:
        for port in USUAL_PORTS:
            taken = stack.enter_context(socket.socket())
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # If another process uses the port, it is taken as well.
            with suppress(OSError):
                taken.bind(("127.0.0.1", port))
                taken.listen()
        # No child of `make up` uses this proxy.
        proxies = dict.fromkeys(("HTTP_PROXY", "all_proxy"), "http://127.0.0.1:9")
        instance = Up(folder, cwd=make_checkout(folder / "topn"), **proxies)
        stack.callback(instance.stop)
        yield instance.start()
        assert instance.end(signal.SIGTERM) == 0
        assert instance.processes() == []


@pytest.fixture
def flow_runs(local_azure, prefect_api, tmp_path):
    """Flow runs on the servers of the tests, with a new state folder."""
    environment = {
        **local_azure.environment,
        "TOPN_STATE": str(tmp_path / "state"),
        "PREFECT_LOCAL_STORAGE_PATH": str(tmp_path / "storage"),
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
    }
    return FlowRuns(prefect_api, environment)
