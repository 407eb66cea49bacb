"""A local Azure whose Batch tasks only wait, and a Prefect server, for the clients under test."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from flows.servers.processes import LocalAzure, PrefectServer

# The output of each Batch task is its id, so that clients can check that each result belongs to its file.
OUTPUT = "$AZ_BATCH_TASK_ID"


@contextmanager
def simulated_azure(
    folder: Path,
    environment: Mapping[str, str],
    options: Sequence[str] = (),
    *,
    delay_seconds: float = 0.0,
    has_outputs: bool = True,
) -> Iterator[dict[str, str]]:
    """Run the block with both servers, and yield the environment of their clients.

    Args:
        folder: The folder for the data of the servers.
        environment: The environment of this process, without `TOPN_` and `PREFECT_` variables.
        options: Options of `localbatch serve`.
        has_outputs: Whether Batch tasks upload an output file that contains their id.
        delay_seconds: Delay of each response of both accounts, which simulates the latency to a region.
    """
    options = ["--runner", "simulated", *(["--task-output", OUTPUT] if has_outputs else []), *options]
    if delay_seconds:
        options += ["--faults", str(_delay_faults(folder, delay_seconds))]
    with LocalAzure(folder, options=options) as azure, PrefectServer(folder / "prefect") as server:
        server.wait()
        yield {
            **environment,
            **azure.wait(),
            "TOPN_STATE": str(folder / "state"),
            "HOME": str(folder),
            **server.client_environment,
            "PREFECT_LOCAL_STORAGE_PATH": str(folder / "storage"),
            "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
            "DO_NOT_TRACK": "1",
        }


def measure_with_local_azure(
    folder: Path, environment: Mapping[str, str], module: str, *, delay_seconds: float
) -> dict[str, object]:
    """Run a module with a local Azure whose responses are delayed. Print and return its measurements.

    Args:
        folder: The folder for the data of the local Azure, and the only argument of the module.
        environment: The environment of this process, without `TOPN_` and `PREFECT_` variables.
        module: A module that prints its measurements as JSON.
        delay_seconds: Delay of each response of both accounts.
    """
    command = [sys.executable, "-m", "localbatch", "exec", "--runner", "simulated"]
    command += ["--faults", str(_delay_faults(folder, delay_seconds)), "--", sys.executable, "-m", module, str(folder)]
    environment = {**environment, "TOPN_STATE": str(folder)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    found: dict[str, object] = json.loads(done.stdout)
    for name, figure in found.items():
        print(f"{name}: {figure}")
    return found


def _delay_faults(folder: Path, seconds: float) -> Path:
    delays = [{"fault": "delay", "operation": "*", "seconds": seconds, "probability": 1}]
    faults = folder / "faults.json"
    faults.write_text(json.dumps({"faults": delays, "storage_faults": delays}))
    return faults


def write_files(folder: Path, count: int) -> Path:
    """Write `count` small files with different contents, and return their folder."""
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number:07}.txt").write_text(f"file {number} of {count}\n" * 20)
    return folder
