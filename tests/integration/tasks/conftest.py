"""The accounts of the local Azure, and the parts of a run."""

from __future__ import annotations

import hashlib
import uuid
from datetime import datetime, timedelta, timezone

import pytest
from tests_support import Submitted

from tasks.accounts import batch_account, blob_account
from tasks.cleanup import delete, find_leftovers
from tasks.clock import SYSTEM_CLOCK
from tasks.doctor import Doctor
from tasks.models import Chunk, InputFile, Keep, Pack, PoolOptions, Run
from tasks.monitor import watch
from tasks.provision import make_containers, make_job, make_pool
from tasks.renew import Renewal
from tasks.word_counts import word_count_workload


@pytest.fixture
def batch(azure_settings):
    return batch_account()


@pytest.fixture
def blobs(azure_settings):
    return blob_account()


@pytest.fixture
def run():
    return Run(
        flow_run_id=str(uuid.uuid4()),
        generation=0,
        deadline_at=datetime.now(timezone.utc) + timedelta(minutes=10),
        prefect_api="http://127.0.0.1:4200/api",
        keep=Keep(),
    )


@pytest.fixture
def workload():
    return word_count_workload(3, ignore_case=False)


@pytest.fixture
def pool_options():
    return PoolOptions(pool_id=None, vm_size="standard_d2s_v3", nodes=1, spot_nodes=0, slots_per_node=2)


@pytest.fixture
def chunk_factory(tmp_path):
    """Make a chunk of files with the given contents."""

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
                    content_key=hashlib.sha256(sha256.encode()).hexdigest(),
                )
            )
        packs = [Pack.of(files)] if packed else [Pack.of([file]) for file in files]
        return Chunk(first=1, total=len(files), packs=tuple(packs))

    return make


@pytest.fixture
def parts(batch, blobs, run, workload, pool_options):
    """The containers, the pool and the job of a run; deleted afterwards."""
    containers = make_containers(blobs, run, workload)
    pool_id = make_pool(batch, blobs, run, workload, containers, pool_options, 1)
    job = make_job(batch, blobs, run, workload, containers, pool_id)
    yield containers, job
    delete(batch, blobs, find_leftovers(batch, blobs, uuid.UUID(run.flow_run_id), Keep()))


@pytest.fixture
def watch_chunk(batch, blobs, run, workload):
    """Wait for the Batch tasks of a chunk, with a doctor and a renewal, as a run does."""

    def do(submitted, job, containers, clock=SYSTEM_CLOCK):
        renewal = Renewal(
            account=batch, blobs=blobs, run=run, job=job, workload=workload, containers=containers, clock=clock
        )
        doctor = Doctor(batch, job, own_pool=job.pool_id == run.name)
        [finished] = watch(batch, job, Submitted(submitted), run.deadline_at, renewal, doctor, clock)
        return finished

    return do
