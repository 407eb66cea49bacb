"""The flow's staging of files, compared with a plain loop of uploads.

The storage account is a local one. Each of its responses is delayed by 20 ms, as from a nearby region. As in the flow,
twelve threads stage one chunk each at a time.
"""

from __future__ import annotations

import json
import random
import resource
import statistics
import sys
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from azure.storage.blob import BlobServiceClient

from bench.measure import ROUNDS, ratio_figures
from bench.simulated_azure import measure_with_local_azure
from flows.topn import MAX_THREADS
from tasks.azure.accounts import blob_account
from tasks.azure.settings import load_settings
from tasks.model.inputs import LocalFiles, find_inputs
from tasks.model.plan import Plan
from tasks.model.run import Containers
from tasks.steps.plan import create_plan
from tasks.steps.stage import stage_chunk
from tasks.workload.base import Workload
from tasks.workload.results_store import FolderStore

DELAY_SECONDS = 0.02
SMALL_BYTES = 10_000
LARGE_BYTES = 64 * 1024 * 1024
"""The largest blob that `upload_blob` sends in one request. It uploads larger blobs in blocks, as the flow does."""

SIZES = {
    "100 files of 10 kB": (100, SMALL_BYTES),
    "300 files of 10 kB": (300, SMALL_BYTES),
    "900 files of 10 kB": (900, SMALL_BYTES),
}
LARGE = {"4 files of 64 MiB": (4, LARGE_BYTES), "4 files of 72 MiB": (4, LARGE_BYTES * 9 // 8)}

WORKLOAD = Workload(name="bench", command="true", outputs=("out",))


def staging(folder: Path, environment: Mapping[str, str]) -> dict[str, object]:
    """Compare the two at several sizes, and measure staging again when all blobs exist."""
    return measure_with_local_azure(folder, environment, "bench.staging", delay_seconds=DELAY_SECONDS)


def measure(folder: Path) -> dict[str, object]:
    """Measure with the configured storage account."""
    account, settings = blob_account(), load_settings()
    key = settings.storage_key.get_secret_value() if settings.storage_key else ""
    service = BlobServiceClient(
        str(settings.storage_endpoint),
        credential={"account_name": str(settings.storage_account), "account_key": key},
    )
    found: dict[str, object] = {}
    for name, (count, size_bytes) in {**SIZES, **LARGE}.items():
        plan = _plan(folder / name, count, size_bytes)
        before_mib = _peak_mib()
        ratios, ours_seconds, again_seconds = [], [], []
        for _ in range(ROUNDS):
            container, plain = (f"bench-{uuid.uuid4().hex}" for _ in range(2))
            for created in (container, plain):
                service.create_container(created)
            ours_seconds.append(_stage(plan, container))
            grown_mib = _peak_mib() - before_mib
            again_seconds.append(_stage(plan, container))
            started = time.monotonic()
            for file in plan.files:
                with Path(file.path).open("rb") as content:
                    service.get_blob_client(plain, file.sha256).upload_blob(content)
            ratios.append(ours_seconds[-1] / (time.monotonic() - started))
            blobs = [
                {blob.name: blob.size for blob in service.get_container_client(c).list_blobs()}
                for c in (container, plain)
            ]
            if blobs[0] != blobs[1] or len(blobs[0]) != count:
                raise RuntimeError("different blobs")
            for created in (container, plain):
                account.delete_container(created)
        found[f"{name}, as the flow does / a plain loop"] = {
            **ratio_figures(ratios),
            "milliseconds_a_file": round(1000 * statistics.median(ours_seconds) / count, 1),
            "again_seconds_median": round(statistics.median(again_seconds), 2),
            "seconds_median": round(statistics.median(ours_seconds), 2),
            "peak_grew_mib": round(grown_mib),
        }
    return found


def _stage(plan: Plan, container: str) -> float:
    account = blob_account()
    containers = Containers(application=container, inputs=container, outputs=container)
    started = time.monotonic()
    with ThreadPoolExecutor(MAX_THREADS) as threads:
        staged = list(threads.map(lambda chunk: stage_chunk(account, chunk, WORKLOAD, containers), plan.chunks))
    seconds = time.monotonic() - started
    if any(chunk.failures for chunk in staged):
        raise RuntimeError(f"not staged: {staged}")
    return seconds


def _plan(folder: Path, count: int, size_bytes: int) -> Plan:
    """Create a plan for `count` new files with different contents."""
    folder.mkdir()
    for number in range(count):
        (folder / str(number)).write_bytes(random.Random(number).randbytes(size_bytes))
    return create_plan(
        find_inputs(LocalFiles(inputs=[str(folder)])), WORKLOAD, FolderStore(folder / "known"), files_per_task=1
    )


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]))))
