"""The cost of blobs as inputs, beside that of local files, by number of files.

The first run of each size processes all files, and the second finds nothing new. Each is a process of its own, with a
real Prefect server and `localbatch`. In Azurite, nodes process the files; in simulated storage, Batch tasks are simulated.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from azure.storage.blob import BlobServiceClient

from bench.simulated_azure import simulated_azure, write_files

CONTAINER = "texts"
RESULTS_CONTAINER = "results"
BLOBS_PER_FOLDER = 1000

AZURITE_SIZES = (100, 10_000)
SIMULATED_SIZES = (10_000, 100_000)
HUGE_SIZES = (100_000, 1_000_000)
UPLOAD_THREADS = 4

Found = dict[str, Any]


def blob_name(number: int) -> str:
    """Return the name of an input."""
    return f"2026/{number // BLOBS_PER_FOLDER:04}/{number:07}.txt"


def blobs_in_azurite(folder: Path, environment: Mapping[str, str]) -> Found:
    """Measure 100 and 10,000 blobs and local files, which nodes of `localbatch` hash."""
    return _measure(folder, environment, AZURITE_SIZES, is_simulated=False)


def blobs_in_simulated_storage(folder: Path, environment: Mapping[str, str]) -> Found:
    """Measure 10,000 and 100,000 blobs and local files, with simulated Batch tasks."""
    return _measure(folder, environment, SIMULATED_SIZES, is_simulated=True)


def million_blobs_in_simulated_storage(folder: Path, environment: Mapping[str, str]) -> Found:
    """Measure 100,000 and 1,000,000 blobs, with simulated Batch tasks."""
    return _measure(folder, environment, HUGE_SIZES, is_simulated=True, has_files=False)


def _measure(
    folder: Path,
    environment: Mapping[str, str],
    sizes: Sequence[int],
    *,
    is_simulated: bool,
    has_files: bool = True,
) -> Found:
    options = ["--node-start-seconds=0", "--runner", "simulated" if is_simulated else "processes"]
    runs: dict[str, dict[int, Found]] = {}
    with simulated_azure(folder, environment, options, has_outputs=False) as clients_environment:
        for size in sizes:
            for kind in ("blobs", *(["files"] if has_files else [])):
                own = folder / f"{kind}-{size}"
                client_environment = {**clients_environment, "TOPN_STATE": str(own / "state")}
                arguments = [str(own / "out")]
                if is_simulated:
                    arguments += [str(size), str(own / "storage")]
                if kind == "files":
                    inputs = f"{write_files(own / 'inputs', size)}/*.txt"
                else:
                    container, results = CONTAINER, RESULTS_CONTAINER
                    if not is_simulated:
                        container, results = (f"{name}-{size}" for name in (CONTAINER, RESULTS_CONTAINER))
                        _upload(clients_environment, container, results, size)
                    inputs = f"az://{container}/2026/**/*.txt"
                    client_environment["TOPN_RESULTS"] = f"az://{results}"
                command = [sys.executable, "-m", "bench.blob_client", inputs, *arguments]
                for run in ("first run", "nothing new"):
                    done = subprocess.run(command, env=client_environment, stdout=subprocess.PIPE, check=True)
                    runs.setdefault(f"{kind}, {run}", {})[size] = found = json.loads(done.stdout)
                    print(f"{size} {kind}, {run}: {found}", flush=True)
    return {"runs": runs, "slopes": {name: _slopes(found) for name, found in runs.items()}}


def _upload(environment: Mapping[str, str], container: str, results: str, count: int) -> None:
    credential: Any = {
        "account_name": environment["TOPN_STORAGE_ACCOUNT"],
        "account_key": environment["TOPN_STORAGE_KEY"],
    }
    service = BlobServiceClient(environment["TOPN_STORAGE_ENDPOINT"], credential=credential)
    service.create_container(results)
    client = service.create_container(container)
    with ThreadPoolExecutor(UPLOAD_THREADS) as threads:
        for _ in threads.map(
            lambda number: client.upload_blob(blob_name(number), f"file {number} of {count}\n" * 20), range(count)
        ):
            pass


def _slopes(runs: Mapping[int, Found]) -> Found:
    """Return what each additional file costs between sizes."""
    slopes: Found = {}
    for smaller, larger in itertools.pairwise(runs):
        more, less = runs[larger], runs[smaller]

        def per_file(name: str, more: Found = more, less: Found = less, files: int = larger - smaller) -> float:
            return float(more[name] - less[name]) / files

        slopes[f"from {smaller} to {larger}, a file"] = slope = {
            "wall_milliseconds": round(1000 * per_file("wall_seconds"), 2),
            "cpu_milliseconds": round(1000 * per_file("cpu_seconds"), 2),
            "kb": round(1024**2 / 1000 * per_file("peak_mib"), 2),
            "bytes_read": round(per_file("bytes_read")),
            "storage_requests": round((_storage(more) - _storage(less)) / (larger - smaller), 4),
        }
        print(slope)
    return slopes


def _storage(run: Found) -> int:
    return sum(count for kind, count in run["requests"].items() if kind.startswith("storage"))
