"""Flow runs of `topn` in processes that can be killed and retried."""

from __future__ import annotations

import os
import subprocess
import sys

from tests_support import REPOSITORY

RUN_FLOW_RUN = REPOSITORY / "tests" / "e2e" / "run_flow_run.py"


class FlowRuns:
    """Creates flow runs of `topn`, runs each in a process and retries it."""

    def __init__(self, api_url, environment):
        self._api_url = api_url
        self._environment = {**os.environ, **environment, "PREFECT_API_URL": api_url}

    def _client(self):
        from prefect import get_client  # noqa: PLC0415 - takes seconds
        from prefect.settings import PREFECT_API_URL, temporary_settings  # noqa: PLC0415

        with temporary_settings({PREFECT_API_URL: self._api_url}):
            return get_client(sync_client=True)

    def create(self, **parameters):
        from flows.topn import topn  # noqa: PLC0415 - takes seconds

        with self._client() as client:
            return client.create_flow_run(topn, parameters=parameters).id

    def start(self, flow_run_id, *killed_at):
        """Start the flow run in a process, which kills itself at `killed_at` if that is given."""
        return subprocess.Popen(
            [sys.executable, str(RUN_FLOW_RUN), str(flow_run_id), *killed_at],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def retry(self, flow_run_id, *killed_at):
        """Retry a run whose process is gone, as `prefect flow-run retry` does."""
        from prefect.states import AwaitingRetry  # noqa: PLC0415 - takes seconds

        with self._client() as client:
            client.set_flow_run_state(flow_run_id, AwaitingRetry(), force=True)
        return self.start(flow_run_id, *killed_at)

    def state(self, flow_run_id):
        with self._client() as client:
            return client.read_flow_run(flow_run_id).state.type.value
