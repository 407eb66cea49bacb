"""The accounts of the local Azure, and the parts of a run.

Modules whose tests only add Batch tasks share one pool and one job: they let `run` and `parts` be `shared_run` and
`shared_parts`. Modules whose tests need no node let `batch` be `batch_without_nodes`.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta, timezone

import pytest
from tests_support import POLL_SECONDS, Submitted

from localbatch import LocalBatch
from tasks.azure.accounts import batch_account, blob_account
from tasks.azure.batch import BatchAccount
from tasks.azure.blob import BlobAccount
from tasks.azure.settings import AzureSettings
from tasks.azure.values import JobSpec
from tasks.clock import SystemClock
from tasks.model.chunks import Chunk, Pack
from tasks.model.files import InputFile
from tasks.model.pool import PoolOptions
from tasks.model.run import Keep, Run
from tasks.steps.cleanup import delete, find_leftovers
from tasks.steps.doctor import Doctor
from tasks.steps.monitor import watch
from tasks.steps.provision import ensure_containers, ensure_job, ensure_pool
from tasks.steps.renew import Renewal
from tasks.steps.stage import stage_chunk
from tasks.steps.submit import submit_chunk
from tasks.workload.word_counts import word_count_workload

POOL_OPTIONS = PoolOptions(pool_id=None, vm_size="standard_d2s_v3", nodes=1, spot_nodes=0, slots_per_node=2)


class QuickClock(SystemClock):
    """The machine's time, for waits that are polls: each ends soon."""

    def sleep(self, seconds):
        time.sleep(min(seconds, POLL_SECONDS))


QUICK_CLOCK = QuickClock()


def make_run(**lifetime):
    return Run(
        flow_run_id=str(uuid.uuid4()),
        generation=0,
        deadline_at=datetime.now(timezone.utc) + timedelta(**lifetime),
        prefect_api="http://127.0.0.1:4200/api",
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
    """A Batch account whose nodes only take time: no process is started."""
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
    """The containers, the pool and the job of a run, for all tests that only add Batch tasks."""
    variables = {name.removeprefix("TOPN_").lower(): value for name, value in local_azure.environment.items()}
    settings = AzureSettings(**variables)
    batch, blobs, workload = BatchAccount(settings), BlobAccount(settings), word_count_workload(3, ignore_case=False)
    with made(batch, blobs, shared_run, workload, POOL_OPTIONS) as parts:
        yield parts


@contextmanager
def made(batch, blobs, run, workload, pool_options):
    """Make the containers, the pool and the job of a run, and delete them afterwards."""
    containers = ensure_containers(blobs, run, workload)
    pool_id = ensure_pool(batch, blobs, run, workload, containers, pool_options, 1)
    job = ensure_job(batch, blobs, run, workload, containers, pool_id)
    yield containers, job
    delete(batch, blobs, find_leftovers(batch, blobs, uuid.UUID(run.flow_run_id), Keep()))


class AzureOfOneTest:
    """The storage account that all tests share, beside a Batch account whose clock one test may move."""

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
    """Start a Batch account for this test alone; `pace` is that of LocalBatch."""
    with ExitStack() as stack:

        def start(pace="instant"):
            server = stack.enter_context(LocalBatch(state_dir=tmp_path / "batch", pace=pace))
            return AzureOfOneTest(local_azure, server)

        yield start


@pytest.fixture
def idle_job(batch):
    """The id of a job whose Batch tasks never run, since it has no pool."""
    job_id = f"idle-{uuid.uuid4().hex}"
    batch.create_job(JobSpec(job_id=job_id, pool_id="nowhere", wall_clock_seconds=600, metadata={}))
    yield job_id
    batch.delete_jobs_and_pools([job_id], [], 5)


@pytest.fixture
def chunk_factory(tmp_path):
    """Make a chunk of files with the given contents; no other test has the same Batch tasks."""

    def make(*contents: bytes, packed: bool = False) -> Chunk:
        files = []
        for number, content in enumerate(contents):
            path = tmp_path / f"{number}.txt"
            path.write_bytes(content)
            sha256 = hashlib.sha256(content).hexdigest()
            files.append(
                InputFile(
                    path=str(path),
                    name=path.name,
                    output=f"{number}_OUTPUT",
                    sha256=sha256,
                    size_bytes=len(content),
                    content_key=hashlib.sha256(f"{tmp_path} {sha256}".encode()).hexdigest(),
                )
            )
        packs = [Pack.of(files)] if packed else [Pack.of([file]) for file in files]
        return Chunk(first=1, total=len(files), packs=tuple(packs))

    return make


@pytest.fixture
def submitted(batch, blobs, run, workload, parts, chunk_factory):
    """Stage contents and add their Batch tasks to the job; returns the submitted chunk."""
    containers, job = parts

    def do(*contents):
        staged = stage_chunk(blobs, chunk_factory(*contents), workload, containers)
        return submit_chunk(batch, blobs, run, staged, job, workload, containers)

    return do


@pytest.fixture
def parts(batch, blobs, run, workload, pool_options):
    """The containers, the pool and the job of a run; deleted afterwards."""
    with made(batch, blobs, run, workload, pool_options) as parts:
        yield parts


@pytest.fixture
def watch_chunk(batch, blobs, run, workload):
    """Wait for the Batch tasks of a chunk, with a doctor and a renewal, as a run does."""

    def do(submitted, job, containers, clock=QUICK_CLOCK):
        renewal = Renewal(
            account=batch, blobs=blobs, run=run, job=job, workload=workload, containers=containers, clock=clock
        )
        doctor = Doctor(batch, job, own_pool=job.pool_id == run.name)
        [finished] = watch(batch, job, Submitted(submitted), run.deadline_at, renewal, doctor, clock)
        return finished

    return do
