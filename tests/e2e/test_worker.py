"""Deployed runs whose process or worker dies leave no resources."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from tests_support import (
    REPOSITORY,
    independent_count,
    leftovers_of,
    processes_of,
    read_blob,
    wait_until,
    watch_requests,
)

TERMINAL = {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}

# One worker and its deployments.
pytestmark = pytest.mark.xdist_group("worker")

UNSHARE = ("unshare", "--mount", "--propagation", "private")

# Executes a command that can write nothing but the folder $0. For root, the modes of files are no obstacle.
READ_ONLY = """
set -e
mount --bind "$0" "$0"
while read -r _ target _; do
    [ "$target" = "$0" ] || mount -o remount,bind,ro "$target" || true
done < /proc/mounts 2> /dev/null
for folder in / /tmp /dev/shm "$PWD"; do [ ! -w "$folder" ]; done
exec "$@"
"""

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
        self.has_usual_worker = True

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

    def worker(self, **variables):
        """Return the worker; start one if none is running."""
        if self._worker is None or self._worker.poll() is not None:
            self._start(self._log, {**self.environment, **variables})
        return self._worker

    def _start(self, log_file, environment, wrapper=()):
        self.has_usual_worker = environment == self.environment
        with log_file.open("ab") as log:
            self._worker = subprocess.Popen(
                [*wrapper, sys.executable, "-m", "prefect", "worker", "start", "--pool", "topn-pool"],
                cwd=REPOSITORY,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self._worker

    def start_container(self, state, **variables):
        """Replace the worker by one that can write only to a new state folder, as in a new container without a disk."""
        self.stop_worker()
        (state / "tmp").mkdir(parents=True)
        settings = {
            "HOME": "/nonexistent",
            "PREFECT_HOME": str(state / "prefect"),
            "TMPDIR": str(state / "tmp"),
            "TOPN_STATE": str(state),
        }
        wrapper = [*UNSHARE, "sh", "-c", READ_ONLY, str(state)]
        return self._start(state / "worker.log", {**self.environment, **settings, **variables}, wrapper)

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
    if not deployment.has_usual_worker:
        deployment.stop_worker()


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


@pytest.mark.parametrize("folder", ["same", "new"])
def test_retry_adopts_job_of_stopped_worker(deployed, endless, topn_sweep, tmp_path, folder):
    """A sweep deletes the pool of the dead run, and keeps its job and containers, which a retry adopts.

    A worker in a new container has none of the results that Prefect stored, and repeats the steps.
    """
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
    new = {"PREFECT_HOME": str(tmp_path / "prefect"), "TOPN_STATE": str(tmp_path / "state")}
    deployed.worker(**(new if folder == "new" else {}))
    deployed.prefect("flow-run", "retry", str(endless))

    assert deployed.wait_for_end(endless).type.value == "COMPLETED"
    assert_counted()
    creating = [record for record in requests() if record.method == "POST" and record.path in {"/jobs", "/pools"}]
    assert {(record.path, record.status) for record in creating} == {("/jobs", 409), ("/pools", 201)}
    wait_until_nothing_is_left(endless)


def can_unshare():
    return shutil.which("unshare") is not None and subprocess.run([*UNSHARE, "true"], check=False).returncode == 0


@pytest.mark.skipif(not can_unshare(), reason="only root on Linux can make folders read-only for a process")
def test_worker_without_disk_needs_only_blob_storage(deployed, tmp_path, azure_settings):
    """Two containers, one after the other. Only Blob Storage has what the second one knows of the first."""
    from tasks.azure.accounts import blob_account  # noqa: PLC0415 - after the environment is set

    blobs, name = blob_account(), uuid.uuid4().hex
    for kind in ("texts", "outputs", "results"):
        blobs.create_container(f"{kind}-{name}", {})
    texts = {f"{folder}/{number}": f"{name} {folder} two two {number}" for folder in "ab" for number in range(2)}
    for path, text in texts.items():
        blobs.upload_bytes(f"texts-{name}", f"{path}.txt", text.encode())
    parameters = {"inputs": [f"az://texts-{name}/**/*.txt"], "output_folder": f"az://outputs-{name}/nightly"}

    def run(container):
        worker = deployed.start_container(tmp_path / container, TOPN_RESULTS=f"az://results-{name}/nightly")
        requests = watch_requests(azure_settings.batch)
        flow_run_id = deployed.create(**parameters)
        state = deployed.wait_for_end(flow_run_id)
        assert state.type.value == "COMPLETED", state
        wait_until_nothing_is_left(flow_run_id)
        etags = {blob.name: blob.etag for blob in blobs.list_blobs(f"outputs-{name}")}
        assert worker.poll() is None
        deployed.stop_worker()
        assert "Traceback" not in (tmp_path / container / "worker.log").read_text()
        return state.message, etags, [record for record in requests() if record.method == "POST"]

    message, etags, creating = run("first")
    assert message == "4 files: 4 counted"
    assert len(creating) > 0
    for path, text in texts.items():
        found = json.loads(read_blob(blobs, f"outputs-{name}", f"nightly/{path}_OUTPUT.json"))
        assert (found["words"], found["distinct"], found["top"]) == independent_count(text)

    shutil.rmtree(tmp_path / "first")
    message, etags_again, creating = run("second")
    assert message == "4 files: 4 unchanged"
    assert creating == []
    assert {path for path, etag in etags.items() if etags_again[path] != etag} == {"nightly/manifest.json"}


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
