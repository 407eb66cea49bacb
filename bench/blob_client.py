"""A flow like `topn` whose requests to both accounts are counted.

    python -m bench.blob_client INPUTS OUTPUTS [BLOBS FOLDER]

runs `sha256sum` on the files of a pattern, and prints time, memory and traffic as JSON. With BLOBS, the storage account
is simulated: it has that many blobs, and the results of earlier runs from the folder.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import requests
from prefect import State

import tasks.azure.transport
from bench.own_client import SIMULATED, TIMEOUT_MINUTES
from bench.simulated_storage import SimulatedStorage
from bench.traffic import Traffic
from flows.topn import run_workload, workload_flow
from localbatch.processes.azurite import STORAGE_ACCOUNT, STORAGE_KEY
from tasks.azure.settings import AzureSettings
from tasks.model.pool import PoolOptions

POOL = PoolOptions(nodes=100, slots_per_node=4)

# A command whose time is small beside that of a run, and whose result shows which content it read.
HASHING = replace(SIMULATED, command="sha256sum <input >result.txt")


@workload_flow("simulated")
def simulated(inputs: list[str], output_folder: str, is_simulated: bool) -> State[Any]:
    """Run small Batch tasks on the inputs."""
    return run_workload(
        SIMULATED if is_simulated else HASHING,
        inputs,
        output_folder,
        pool_options=POOL if is_simulated else PoolOptions(nodes=2, slots_per_node=1),
        timeout_minutes=TIMEOUT_MINUTES,
    )


def main() -> int:
    """Run the flow, check the results, and print the measurements."""
    inputs, outputs, *simulation = sys.argv[1:]
    storage = SimulatedStorage(Path(simulation[1]), int(simulation[0])) if simulation else None
    if storage is not None:
        os.environ |= {
            "TOPN_STORAGE_ENDPOINT": storage.endpoint,
            "TOPN_STORAGE_ACCOUNT": STORAGE_ACCOUNT,
            "TOPN_STORAGE_KEY": STORAGE_KEY,
        }
    traffic = Traffic(str(AzureSettings().storage_endpoint), storage.request if storage else None)

    class Session(requests.Session):
        def request(self, method: Any, url: Any, *_: Any, **options: Any) -> requests.Response:
            if storage is not None and "addtaskcollection" in url:
                storage.learn_batch_tasks(options["data"])
            return traffic.send(super().request, method, url, **options)

    transport: Any = tasks.azure.transport
    transport.Session = Session
    started = time.monotonic()
    report: Any = simulated([inputs], outputs, storage is not None)
    wall_seconds = time.monotonic() - started
    wrong = [file.file.name for file in report.files if file.result is None or not _is_right(file, storage is not None)]
    if wrong:
        raise RuntimeError(f"wrong results: {wrong}")
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps(
            {
                "files": len(report.files),
                "unchanged": report.count("unchanged"),
                "wall_seconds": wall_seconds,
                "cpu_seconds": usage.ru_utime + usage.ru_stime - traffic.simulation_cpu_seconds,
                "simulation_cpu_seconds": traffic.simulation_cpu_seconds,
                "peak_mib": usage.ru_maxrss / 1024,
                "task_runs": sum(step.task_runs for step in report.steps),
                "requests": dict(sorted(traffic.requests.items())),
                "bytes_read": traffic.bytes_read,
                "step_seconds": {step.step: round(step.seconds, 2) for step in report.steps},
            }
        )
    )
    return 0


def _is_right(file: Any, is_simulated: bool) -> bool:
    expected = file.result.provenance.task_id if is_simulated else f"{file.file.sha256}  -\n"
    return bool(file.result.outputs == {"result.txt": expected.encode()})


if __name__ == "__main__":
    raise SystemExit(main())
