"""The cost of orchestration by number of files, with a real Prefect server, `localbatch` and no storage account.

Orchestration is everything except uploads, downloads and the work of Batch tasks. During the runs, a thread sends the
Prefect server the requests of its UI.
"""

from __future__ import annotations

import base64
import itertools
import json
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.measure import ROUNDS
from bench.simulated_azure import simulated_azure, write_files

SIZES = (100, 1000, 10_000)
HUGE_SIZES = (10_000, 100_000, 1_000_000)
NODES, SLOTS = 100, 4
REQUEST_INTERVAL_SECONDS = 0.5


def growth(folder: Path, environment: Mapping[str, str]) -> dict[str, object]:
    """Measure runs of three sizes with one file per Batch task."""
    inputs = {size: write_files(folder / str(size), size) for size in SIZES}
    return measure_sizes(folder, environment, inputs, files_per_task=1, rounds=ROUNDS)


def scale(folder: Path, environment: Mapping[str, str]) -> dict[str, object]:
    """Measure one run each of 10,000, 100,000 and 1,000,000 files. The flow chooses the files per Batch task."""
    inputs = {size: write_files(folder / str(size), size) for size in HUGE_SIZES}
    return measure_sizes(folder, environment, inputs, files_per_task=0, rounds=1)


def measure_sizes(
    folder: Path, environment: Mapping[str, str], inputs: Mapping[int, Path], *, files_per_task: int, rounds: int
) -> dict[str, object]:
    """Run `bench.scale` on each folder in every round. With `files_per_task=0`, the flow chooses the number."""
    runs: dict[int, list[dict[str, Any]]] = {size: [] for size in inputs}
    with simulated_azure(folder, environment, ["--node-start-seconds=0"], has_outputs=False) as clients_environment:
        for _ in range(rounds):
            for size, files in inputs.items():
                command = [sys.executable, "-m", "bench.scale", str(files), str(folder / "out")]
                command += [str(NODES), str(SLOTS), str(files_per_task)]
                with _queried_like_the_ui(clients_environment) as response_seconds:
                    done = subprocess.run(command, env=clients_environment, stdout=subprocess.PIPE, check=True)
                runs[size].append(json.loads(done.stdout) | {"response_seconds": response_seconds})
    return {**{str(size): _figures(found) for size, found in runs.items()}, **_slopes(runs)}


def _figures(runs: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    task_runs = sum(step["task_runs"] for step in runs[-1]["steps"])
    responses = [seconds for run in runs for seconds in run["response_seconds"]]
    found: dict[str, object] = {
        "wall_seconds": [round(run["wall_seconds"], 2) for run in runs],
        "wall_seconds_median": round(_median(runs, "wall_seconds"), 2),
        "cpu_seconds_median": round(_median(runs, "cpu_seconds"), 2),
        "peak_mib_median": round(_median(runs, "peak_mib"), 1),
        "task_runs": task_runs,
        "server_answer_seconds_median": round(statistics.median(responses), 3),
        "server_answer_seconds_worst": round(max(responses), 3),
    }
    print(f"{runs[0]['files']} files: {found}")
    return found


def _slopes(runs: Mapping[int, Sequence[Mapping[str, Any]]]) -> dict[str, object]:
    """Return time and memory per additional file between sizes, and the memory ratio of the largest to the smallest."""
    sizes = list(runs)
    slopes: dict[str, object] = {}
    for smaller, larger in itertools.pairwise(sizes):
        wall, cpu, peak = (
            (_median(runs[larger], name) - _median(runs[smaller], name)) / (larger - smaller)
            for name in ("wall_seconds", "cpu_seconds", "peak_mib")
        )
        slopes[f"from {smaller} to {larger}, a file"] = {
            "wall_milliseconds": round(1000 * wall, 2),
            "cpu_milliseconds": round(1000 * cpu, 2),
            "kib": round(1024 * peak, 2),
        }
    if len(sizes) > 1:
        slopes["peak memory, largest / smallest"] = round(
            _median(runs[sizes[-1]], "peak_mib") / _median(runs[sizes[0]], "peak_mib"), 3
        )
    print(slopes)
    return slopes


def _median(runs: Sequence[Mapping[str, Any]], name: str) -> float:
    return float(statistics.median(run[name] for run in runs))


@contextmanager
def _queried_like_the_ui(environment: Mapping[str, str]) -> Iterator[list[float]]:
    """Query the latest runs from the Prefect server at intervals, and yield the response times in seconds."""
    seconds: list[float] = []
    ended = threading.Event()
    credentials = base64.b64encode(environment["PREFECT_API_AUTH_STRING"].encode()).decode()
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {credentials}"}

    def send_requests() -> None:
        body = json.dumps({"sort": "START_TIME_DESC", "limit": 200}).encode()
        while not ended.wait(REQUEST_INTERVAL_SECONDS):
            for kind in ("flow_runs", "task_runs"):
                request = urllib.request.Request(
                    f"{environment['PREFECT_API_URL']}/{kind}/filter",
                    body if kind == "flow_runs" else b'{"limit": 200}',
                    headers,
                )
                started = time.monotonic()
                with urllib.request.urlopen(request, timeout=60) as response:
                    response.read()
                seconds.append(time.monotonic() - started)

    thread = threading.Thread(target=send_requests)
    thread.start()
    try:
        yield seconds
    finally:
        ended.set()
        thread.join()
