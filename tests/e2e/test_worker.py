"""Deployed runs whose process or worker dies leave no resources."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests_support import REPOSITORY, independent_count, leftovers_of, processes_of, wait_until, watch_requests

TERMINAL = {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}

# One worker and its deployments.
pytestmark = pytest.mark.xdist_group("worker")

# A worker waits 30 s for a cancelled flow run to end, and checks for dead ones every 10 s.
END_TIMEOUT_SECONDS = 120


class Deployed:
    """The deployment `topn/default`, and at most one worker of its work pool."""

    def __init__(self, api_url, folder, azure):
        self.azure = azure
        self.environment = {
            **os.environ,
            **azure.environment,
            "PREFECT_API_URL": api_url,
            "PREFECT_HOME": str(folder / "home"),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "TOPN_STATE": str(folder / "state"),
            "PWD": str(REPOSITORY),
        }
        self._log = folder / "worker.log"
        self._worker = None

    def prefect(self, *arguments):
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *arguments],
            cwd=REPOSITORY,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def deploy(self):
        from prefect.settings import PREFECT_API_URL, temporary_settings  # noqa: PLC0415 - takes seconds

        from flows.servers.prefect_setup import prepare_server  # noqa: PLC0415 - takes seconds

        with temporary_settings({PREFECT_API_URL: self.environment["PREFECT_API_URL"]}):
            prepare_server("topn-pool")
        self.prefect("--no-prompt", "deploy", "--all")
        with self.client() as client:
            for name in ("topn/default", "sweep/default"):
                # Scheduled runs would disturb the tests.
                client.pause_deployment(client.read_deployment_by_name(name).id)

    def worker(self):
        """Return the worker; start one if none is running."""
        if self._worker is None or self._worker.poll() is not None:
            with self._log.open("ab") as log:
                self._worker = subprocess.Popen(
                    [sys.executable, "-m", "prefect", "worker", "start", "--pool", "topn-pool"],
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        return self._worker

    def stop_worker(self, number=signal.SIGTERM):
        if self._worker is not None:
            self._worker.send_signal(number)
            self._worker.wait(60)

    def client(self):
        from prefect import get_client  # noqa: PLC0415 - takes seconds
        from prefect.settings import PREFECT_API_URL, temporary_settings  # noqa: PLC0415 - as above

        with temporary_settings({PREFECT_API_URL: self.environment["PREFECT_API_URL"]}):
            return get_client(sync_client=True)

    def create(self, **parameters):
        """Create a run, as the form in the UI does, and return its id."""
        self.worker()
        with self.client() as client:
            deployment = client.read_deployment_by_name("topn/default")
            return client.create_flow_run_from_deployment(deployment.id, parameters=parameters).id

    def set_state(self, flow_run_id, state, *, force=False):
        with self.client() as client:
            client.set_flow_run_state(flow_run_id, state, force=force)

    def run(self, flow_run_id):
        with self.client() as client:
            return client.read_flow_run(flow_run_id)

    def state(self, flow_run_id):
        return self.run(flow_run_id).state.type.value

    def wait_for_end(self, flow_run_id):
        wait_until(lambda: self.state(flow_run_id) in TERMINAL, "the run has ended", seconds=END_TIMEOUT_SECONDS)
        return self.run(flow_run_id).state

    def wait_for_running_batch_task(self, flow_run_id):
        """Wait until the run's job has a running Batch task, so that all resources exist."""
        prefix = f"topn-{flow_run_id.hex}-"

        def is_running():
            assert self.state(flow_run_id) not in TERMINAL, self.run(flow_run_id).state
            return any(batch().get_task_counts(job.job_id).running for job in batch().list_jobs(prefix))

        wait_until(is_running, "a Batch task is running", seconds=END_TIMEOUT_SECONDS)


def batch():
    from tasks.azure.accounts import batch_account  # noqa: PLC0415 - after the environment is set

    return batch_account()


def leftovers(flow_run_id):
    from tasks.azure.accounts import blob_account  # noqa: PLC0415 - after the environment is set

    return leftovers_of(batch(), blob_account(), flow_run_id).names


def wait_until_nothing_is_left(flow_run_id):
    """Wait until the cleanup hook is done and the process has ended; both happen after the final state is set."""
    wait_until(lambda: leftovers(flow_run_id) == (), "the hook has cleaned up", seconds=END_TIMEOUT_SECONDS)
    wait_until(lambda: flow_processes(flow_run_id) == [], "no process is left", seconds=END_TIMEOUT_SECONDS)


def flow_processes(flow_run_id):
    return [int(pid) for pid, _ in processes_of(f"PREFECT__FLOW_RUN_ID={flow_run_id}")]


@pytest.fixture(scope="module")
def deployment(prefect_api, local_azure, tmp_path_factory):
    deployed = Deployed(prefect_api, tmp_path_factory.mktemp("worker"), local_azure)
    deployed.deploy()
    yield deployed
    deployed.stop_worker()


@pytest.fixture
def deployed(deployment, azure_settings):
    yield deployment
    azure_settings.faults.clear()


@pytest.fixture
def parameters():
    """Parameters of a run that counts two files."""
    for name in ("a", "b"):
        Path(f"{name}.txt").write_text(f"{os.getcwd()} {name} one two two")
    return {"inputs": [os.path.abspath("*.txt")], "output_folder": os.path.abspath("results")}


@pytest.fixture
def endless(deployed, parameters):
    """The id of a run whose Batch tasks are running and never end."""
    deployed.azure.faults.add("endless_task", task="*")
    flow_run_id = deployed.create(**parameters)
    deployed.wait_for_running_batch_task(flow_run_id)
    return flow_run_id


def test_killed_process_becomes_crashed_and_leaves_nothing(deployed, endless):
    """The worker runs the cleanup hook for a process that was killed."""
    for pid in flow_processes(endless):
        os.kill(pid, signal.SIGKILL)

    assert deployed.wait_for_end(endless).type.value == "CRASHED"
    wait_until_nothing_is_left(endless)


def test_run_of_killed_worker_leaves_nothing(deployed, endless, topn_sweep):
    deployed.stop_worker(signal.SIGKILL)
    # The flow's output pipe has no reader, so its next line of output ends it, and its own hook cleans up.
    deployed.azure.faults.clear()

    wait_until(lambda: flow_processes(endless) == [], "the flow's process is gone", seconds=END_TIMEOUT_SECONDS)
    assert deployed.state(endless) in TERMINAL
    topn_sweep()
    assert leftovers(endless) == ()


def test_retry_adopts_job_of_stopped_worker(deployed, endless, topn_sweep):
    """A sweep deletes the pool of the dead run, and keeps its job and containers, which a retry adopts."""
    from prefect.states import Crashed  # noqa: PLC0415

    deployed.stop_worker(signal.SIGTERM)
    wait_until(lambda: flow_processes(endless) == [], "the flow's process is gone", seconds=END_TIMEOUT_SECONDS)
    assert deployed.state(endless) == "RUNNING"
    assert len(leftovers(endless)) == 5
    assert re.fullmatch(r"deleted: pool topn-\w+-\d+\n", topn_sweep().stdout)
    assert len(leftovers(endless)) == 4

    deployed.set_state(endless, Crashed(), force=True)
    requests = watch_requests(deployed.azure.batch)
    deployed.azure.faults.clear()
    deployed.worker()
    deployed.prefect("flow-run", "retry", str(endless))

    assert deployed.wait_for_end(endless).type.value == "COMPLETED"
    assert_counted()
    creating = [record for record in requests() if record.method == "POST" and record.path in {"/jobs", "/pools"}]
    assert {(record.path, record.status) for record in creating} == {("/jobs", 409), ("/pools", 201)}
    wait_until_nothing_is_left(endless)


def assert_counted():
    for name in ("a", "b"):
        found = json.loads(Path(f"results/{name}_OUTPUT.json").read_text())
        expected = independent_count(Path(f"{name}.txt").read_text())
        assert (found["words"], found["distinct"], found["top"]) == expected


@pytest.fixture
def topn_sweep(deployed):
    def sweep():
        done = subprocess.run(
            [sys.executable, "-m", "topn_command", "sweep"],
            env=deployed.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done

    return sweep
