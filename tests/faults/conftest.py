"""Flow runs that are killed and repeated."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

RUN_FLOW_RUN = Path(__file__).with_name("run_flow_runs.py")


class FlowRuns:
    """Makes flow runs of `topn`, runs them in processes, and lets them be repeated."""

    def __init__(self, api_url, environment):
        self._api_url = api_url
        self.environment = environment

    def _client(self):
        from prefect import get_client  # noqa: PLC0415
        from prefect.settings import PREFECT_API_URL, temporary_settings  # noqa: PLC0415

        with temporary_settings({PREFECT_API_URL: self._api_url}):
            return get_client(sync_client=True)

    def create(self, **parameters):
        from flows.topn import topn  # noqa: PLC0415

        with self._client() as client:
            return client.create_flow_run(topn, parameters=parameters).id

    def start(self, flow_run_id, *killed_at):
        """Run it in a process, which may be told where to kill itself."""
        return self._process(str(flow_run_id), *killed_at)

    @contextmanager
    def one_process(self):
        """A process that runs one flow run after the other: yields a function that runs one and returns its state."""
        with self._process() as process:

            def run(flow_run_id):
                process.stdin.write(f"{flow_run_id}\n")
                process.stdin.flush()
                said = list(iter(process.stdout.readline, f"{flow_run_id}\n"))
                print("".join(said))
                return self.state(flow_run_id)

            yield run
            process.stdin.close()

    def _process(self, *arguments):
        return subprocess.Popen(
            [sys.executable, str(RUN_FLOW_RUN), *arguments],
            env={**os.environ, **self.environment, "PREFECT_API_URL": self._api_url},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def repeat(self, flow_run_id, *killed_at):
        """What `prefect flow-run retry` does with a run whose process is gone."""
        from prefect.states import AwaitingRetry  # noqa: PLC0415

        with self._client() as client:
            client.set_flow_run_state(flow_run_id, AwaitingRetry(), force=True)
        return self.start(flow_run_id, *killed_at)

    def state(self, flow_run_id):
        with self._client() as client:
            return client.read_flow_run(flow_run_id).state.type.value


@pytest.fixture
def flow_runs(local_azure, prefect_api, tmp_path):
    environment = {
        **local_azure.environment,
        "TOPN_STATE": str(tmp_path / "state"),
        "PREFECT_LOCAL_STORAGE_PATH": str(tmp_path / "storage"),
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
    }
    return FlowRuns(prefect_api, environment)
