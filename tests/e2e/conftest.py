"""The `topn` command as a process, started the way a user starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

COMMAND = [sys.executable, "-m", "flows.cli"]


class TopnProcess:
    """Runs `topn` as a process in the current folder, with `environment` added to this process's environment."""

    def __init__(self, **environment):
        self.environment = environment

    def __call__(self, *arguments, timeout=120, **variables):
        return subprocess.run(
            [*COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=self._environment_with(variables),
            check=False,
        )

    def start(self, *arguments, **variables):
        return subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._environment_with(variables),
            start_new_session=True,
        )

    def json(self, *arguments, status=0, **variables):
        """Run `topn run --json` and return the document that it prints."""
        done = self("run", "--json", *arguments, **variables)
        assert done.returncode == status, done.stderr
        return json.loads(done.stdout)

    def _environment_with(self, variables):
        return {**os.environ, "PYTHONWARNINGS": "error::ResourceWarning", **self.environment, **variables}


@pytest.fixture
def topn(local_azure, prefect_api, tmp_path):
    """`topn` on the tests' own servers, with a fresh state folder."""
    return TopnProcess(**local_azure.environment, PREFECT_API_URL=prefect_api, TOPN_STATE=str(tmp_path / "state"))


@pytest.fixture
def topn_alone(tmp_path):
    """`topn` without any configuration and with an empty home folder, so that it starts its own servers."""
    home = tmp_path / "home"
    home.mkdir()
    return TopnProcess(HOME=str(home), TOPN_STATE=str(tmp_path / "state"))
