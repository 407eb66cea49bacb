"""Fixtures for the accounts of the local Azure and the resources of a run.

Modules whose tests only add Batch tasks share one pool and one job. They override `run` and `parts` with `shared_run`
and `shared_parts`. Modules whose tests need no node override `batch` with `batch_without_nodes`.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta, timezone

import pytest
from run_reports import written_file
from tests_support import POLL_SECONDS, Submitted, leftovers_of

from localbatch import LocalBatch
from tasks.azure.accounts import batch_account, blob_account
from tasks.azure.batch import BatchAccount
from tasks.azure.blob import BlobAccount
from tasks.azure.settings import AzureSettings
from tasks.azure.values import JobSpec
from tasks.clock import SystemClock
from tasks.model.chunks import Chunk, Pack
from tasks.model.pool import PoolOptions
from tasks.model.run import Keep, Run
from tasks.steps import life
from tasks.steps.cleanup import delete
from tasks.steps.doctor import Doctor
from tasks.steps.monitor import watch
from tasks.steps.provision import ensure_containers, ensure_job, ensure_pool
from tasks.steps.stage import stage_chunk
from tasks.steps.submit import Renewal, submit_chunk
from tasks.workload.word_counts import word_count_workload

POOL_OPTIONS = PoolOptions(pool_id=None, vm_size="standard_d2s_v3", nodes=1, spot_nodes=0, slots_per_node=2)


class QuickClock(SystemClock):
    """The system clock with short sleeps, for waits that poll."""

    def sleep(self, seconds):
        time.sleep(min(seconds, POLL_SECONDS))


QUICK_CLOCK = QuickClock()


def make_run(**lifetime):
    return Run(
        flow_run_id=str(uuid.uuid4()),
        generation=0,
        deadline_at=datetime.now(timezone.utc) + timedelta(**lifetime),
        keep=Keep(),
    )


@pytest.fixture
def batch(azure_settings):
    return batch_account()


@pytest.fixture
def blobs(azure_settings):
    return blob_account()


@pytest.fixture
def run():
    return make_run(minutes=10)


@pytest.fixture
def workload():
    return word_count_workload(3, ignore_case=False)


@pytest.fixture
def pool_options():
    return POOL_OPTIONS


@pytest.fixture(scope="session")
def server_without_nodes(tmp_path_factory):
    """A Batch account with simulated nodes, which start no processes."""
    with LocalBatch(state_dir=tmp_path_factory.mktemp("batch"), pace="instant", runner="simulated") as server:
        yield server


@pytest.fixture(scope="session")
def batch_without_nodes(server_without_nodes):
    server = server_without_nodes
    return BatchAccount(
        AzureSettings(batch_endpoint=server.endpoint, batch_account=server.account, batch_key=server.key)
    )


@pytest.fixture(scope="session")
def shared_run():
    return make_run(hours=3)


@pytest.fixture(scope="session")
def shared_parts(local_azure, shared_run):
    """The containers and the job of a run, shared by all tests that only add Batch tasks."""
    variables = {name.removeprefix("TOPN_").lower(): value for name, value in local_azure.environment.items()}
    settings = AzureSettings(**variables)
    batch, blobs, workload = BatchAccount(settings), BlobAccount(settings), word_count_workload(3, ignore_case=False)
    with provisioned(batch, blobs, shared_run, workload, POOL_OPTIONS) as parts, ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(life, "blob_account", lambda: blobs)
            # Without signs of life, the sweep of another test deletes this run after some minutes.
            stack.enter_context(life.heartbeat(shared_run))
        yield parts


@contextmanager
def provisioned(batch, blobs, run, workload, pool_options):
    """Create the containers, the pool and the job of a run, and delete them afterwards."""
    containers = ensure_containers(blobs, run, workload)
    pool_id = ensure_pool(batch, blobs, run, workload, containers, pool_options, 1)
    job = ensure_job(batch, blobs, run, workload, containers, pool_id)
    yield containers, job
    delete(batch, blobs, leftovers_of(batch, blobs, run.flow_run_id))


class SeparateAzure:
    """The shared storage account, and a separate Batch account whose clock the test may advance."""

    def __init__(self, azure, batch):
        self.batch, self.faults = batch, batch.faults
        self.environment = {
            **azure.environment,
            "TOPN_BATCH_ENDPOINT": batch.endpoint,
            "TOPN_BATCH_ACCOUNT": batch.account,
            "TOPN_BATCH_KEY": batch.key,
        }


@pytest.fixture
def azure_of_one_test(local_azure, tmp_path):
    """Return a function that starts a separate Batch account; `pace` is that of `LocalBatch`."""
    with ExitStack() as stack:

        def start(pace="instant"):
            server = stack.enter_context(LocalBatch(state_dir=tmp_path / "batch", pace=pace))
            return SeparateAzure(local_azure, server)

        yield start


@pytest.fixture
def idle_job(batch):
    """The id of a job without a pool, whose Batch tasks never run."""
    job_id = f"idle-{uuid.uuid4().hex}"
    batch.create_job(JobSpec(job_id=job_id, pool_id="nowhere", wall_clock_seconds=600, metadata={}))
    yield job_id
    batch.delete_jobs_and_pools([job_id], [], 5)


@pytest.fixture
def chunk_factory(tmp_path):
    """Return a function that creates a chunk of files, with Batch tasks that no other test has."""

    def make(*contents: bytes, packed: bool = False) -> Chunk:
        keys = [
            hashlib.sha256(f"{tmp_path} {hashlib.sha256(content).hexdigest()}".encode()).hexdigest()
            for content in contents
        ]
        files = [
            written_file(tmp_path, number, content, key)
            for number, (content, key) in enumerate(zip(contents, keys, strict=True))
        ]
        packs = [Pack.of(files)] if packed else [Pack.of([file]) for file in files]
        return Chunk(first=1, total=len(files), packs=tuple(packs))

    return make


@pytest.fixture
def submitted(batch, blobs, run, workload, parts, chunk_factory):
    """Return a function that stages contents, adds their Batch tasks and returns the submitted chunk."""
    containers, job = parts

    def do(*contents):
        staged = stage_chunk(blobs, chunk_factory(*contents), workload, containers)
        return submit_chunk(batch, blobs, run, staged, job, workload, containers)

    return do


@pytest.fixture
def parts(batch, blobs, run, workload, pool_options):
    """The containers and the job of a run, which are deleted afterwards."""
    with provisioned(batch, blobs, run, workload, pool_options) as parts:
        yield parts


@pytest.fixture
def watch_chunk(batch, blobs, run, workload):
    """Return a function that waits for the Batch tasks of a chunk, as a run does."""

    def do(submitted, job, containers, clock=QUICK_CLOCK):
        renewal = Renewal(
            account=batch, blobs=blobs, run=run, job=job, workload=workload, containers=containers, clock=clock
        )
        doctor = Doctor(batch, job, own_pool=job.pool_id == run.name)
        [finished] = watch(batch, job, Submitted(submitted), run.deadline_at, renewal, doctor, clock)
        return finished

    return do
