"""The `topn` command, as a user starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

COMMAND = [sys.executable, "-m", "flows.cli"]


def text_environment(**variables):
    """An environment for a child process: this one's, and no trace of the test runner."""
    return {**os.environ, "PYTHONWARNINGS": "error::ResourceWarning", **variables}


class Topn:
    """Runs `topn` with an environment, in the current folder."""

    def __init__(self, **environment):
        self.environment = environment

    def __call__(self, *arguments, timeout=120, **variables):
        return subprocess.run(
            [*COMMAND, *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            env=text_environment(**(self.environment | variables)),
            check=False,
        )

    def start(self, *arguments, **variables):
        return subprocess.Popen(
            [*COMMAND, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=text_environment(**self.environment, **variables),
            start_new_session=True,
        )

    def json(self, *arguments, status=0, **variables):
        """Run `topn run --json`; returns the document."""
        done = self("run", "--json", *arguments, **variables)
        assert done.returncode == status, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def topn(local_azure, prefect_api, tmp_path):
    """`topn` on the tests' own servers, with a fresh state folder."""
    return Topn(**local_azure.environment, PREFECT_API_URL=prefect_api, TOPN_STATE=str(tmp_path / "state"))


@pytest.fixture
def topn_alone(tmp_path):
    """`topn` with nothing configured and an empty home: it starts servers of its own."""
    home = tmp_path / "home"
    home.mkdir()
    return Topn(HOME=str(home), TOPN_STATE=str(tmp_path / "state"))
