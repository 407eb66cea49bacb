"""How the flow's own cost grows with the number of files: its Prefect server and `localbatch` are real, storage is not.

Everything but uploads, downloads and the work of Batch tasks is orchestration. Meanwhile, somebody asks the Prefect server
what its pages ask for.
"""

from __future__ import annotations

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
ASK_EVERY_SECONDS = 0.5


def growth(folder: Path, environment: Mapping[str, str]) -> dict[str, object]:
    """Measure at three sizes, one file a Batch task."""
    inputs = {size: write_files(folder / str(size), size) for size in SIZES}
    return measured(folder, environment, inputs, files_per_task=1, rounds=ROUNDS)


def scale(folder: Path, environment: Mapping[str, str]) -> dict[str, object]:
    """Run a hundred thousand files, and a million, once each; the flow packs them."""
    inputs = {size: write_files(folder / str(size), size) for size in HUGE_SIZES}
    return measured(folder, environment, inputs, files_per_task=0, rounds=1)


def measured(
    folder: Path, environment: Mapping[str, str], inputs: Mapping[int, Path], *, files_per_task: int, rounds: int
) -> dict[str, object]:
    """Run `bench.scale` on each folder in every round; 0 files a Batch task leaves the choice to the flow."""
    runs: dict[int, list[dict[str, Any]]] = {size: [] for size in inputs}
    with simulated_azure(folder, environment, ["--node-start-seconds=0"], has_outputs=False) as clients_environment:
        for _ in range(rounds):
            for size, files in inputs.items():
                command = [sys.executable, "-m", "bench.scale", str(files), str(folder / "out")]
                command += [str(NODES), str(SLOTS), str(files_per_task)]
                with _asked_meanwhile(clients_environment["PREFECT_API_URL"]) as answer_seconds:
                    done = subprocess.run(command, env=clients_environment, stdout=subprocess.PIPE, check=True)
                runs[size].append(json.loads(done.stdout) | {"answer_seconds": answer_seconds})
    return {**{str(size): _figures(found) for size, found in runs.items()}, **_slopes(runs)}


def _figures(runs: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    task_runs = sum(step["task_runs"] for step in runs[-1]["steps"])
    answers = [seconds for run in runs for seconds in run["answer_seconds"]]
    found: dict[str, object] = {
        "wall_seconds": [round(run["wall_seconds"], 2) for run in runs],
        "wall_seconds_median": round(_median(runs, "wall_seconds"), 2),
        "cpu_seconds_median": round(_median(runs, "cpu_seconds"), 2),
        "peak_mib_median": round(_median(runs, "peak_mib"), 1),
        "task_runs": task_runs,
        "server_answer_seconds_median": round(statistics.median(answers), 3),
        "server_answer_seconds_worst": round(max(answers), 3),
    }
    print(f"{runs[0]['files']} files: {found}")
    return found


def _slopes(runs: Mapping[int, Sequence[Mapping[str, Any]]]) -> dict[str, object]:
    """Between each size and the next: milliseconds and bytes for each file more; and the largest beside the smallest."""
    sizes = list(runs)
    slopes: dict[str, object] = {}
    for less, more in itertools.pairwise(sizes):
        wall, cpu, peak = (
            (_median(runs[more], name) - _median(runs[less], name)) / (more - less)
            for name in ("wall_seconds", "cpu_seconds", "peak_mib")
        )
        slopes[f"from {less} to {more}, a file"] = {
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
def _asked_meanwhile(api_url: str) -> Iterator[list[float]]:
    """Ask the Prefect server for its latest runs now and then; yields how many seconds each answer took."""
    seconds: list[float] = []
    ended = threading.Event()

    def ask() -> None:
        body = json.dumps({"sort": "START_TIME_DESC", "limit": 200}).encode()
        while not ended.wait(ASK_EVERY_SECONDS):
            for kind in ("flow_runs", "task_runs"):
                request = urllib.request.Request(
                    f"{api_url}/{kind}/filter",
                    body if kind == "flow_runs" else b'{"limit": 200}',
                    {"Content-Type": "application/json"},
                )
                started = time.monotonic()
                with urllib.request.urlopen(request, timeout=60) as answer:
                    answer.read()
                seconds.append(time.monotonic() - started)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield seconds
    finally:
        ended.set()
        thread.join()
