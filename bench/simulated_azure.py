"""A local Azure whose Batch tasks only take time, and a Prefect server, for clients that run beside them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from flows.servers.processes import LocalAzure, PrefectServer

# Each Batch task leaves its own id, so that a client can see that each result is that of its file.
OUTPUT = "$AZ_BATCH_TASK_ID"


@contextmanager
def simulated_azure(
    folder: Path,
    environment: Mapping[str, str],
    options: Sequence[str] = (),
    *,
    answer_seconds: float = 0.0,
    has_outputs: bool = True,
) -> Iterator[dict[str, str]]:
    """Run them in a folder; yields the environment of clients.

    Args:
        folder: Where they keep their data.
        environment: Of this process, without settings.
        options: Of `localbatch serve`.
        has_outputs: Whether Batch tasks leave output files, each with its own id in it.
        answer_seconds: How late each answer of both accounts is, as from services that are not on this machine.
    """
    options = ["--runner", "simulated", *(["--task-output", OUTPUT] if has_outputs else []), *options]
    if answer_seconds:
        options += ["--faults", str(_late_answers(folder, answer_seconds))]
    with LocalAzure(folder, options=options) as azure, PrefectServer(folder / "prefect") as server:
        server.wait()
        yield {
            **environment,
            **azure.wait(),
            "TOPN_STATE": str(folder / "state"),
            "HOME": str(folder),
            "PREFECT_API_URL": server.api_url,
            "PREFECT_LOCAL_STORAGE_PATH": str(folder / "storage"),
            "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
            "DO_NOT_TRACK": "1",
        }


def measure_beside(
    folder: Path, environment: Mapping[str, str], module: str, *, answer_seconds: float
) -> dict[str, object]:
    """Run a module beside a local Azure with late answers, print what it found, and return it.

    Args:
        folder: Where the local Azure keeps its data; the module's only argument.
        environment: Of this process, without settings.
        module: Prints its figures as JSON.
        answer_seconds: How late each answer of both accounts is.
    """
    command = [sys.executable, "-m", "localbatch", "exec", "--runner", "simulated"]
    command += ["--faults", str(_late_answers(folder, answer_seconds)), "--", sys.executable, "-m", module, str(folder)]
    environment = {**environment, "TOPN_STATE": str(folder)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    found: dict[str, object] = json.loads(done.stdout)
    for name, figure in found.items():
        print(f"{name}: {figure}")
    return found


def _late_answers(folder: Path, seconds: float) -> Path:
    late = [{"fault": "delay", "operation": "*", "seconds": seconds, "probability": 1}]
    faults = folder / "faults.json"
    faults.write_text(json.dumps({"faults": late, "storage_faults": late}))
    return faults


def write_files(folder: Path, count: int) -> Path:
    """Write as many small files, all different; returns their folder."""
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number:07}.txt").write_text(f"file {number} of {count}\n" * 20)
    return folder
