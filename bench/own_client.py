"""A flow like `topn` whose workload runs on simulated nodes.

    python -m bench.own_client INPUTS OUTPUTS NODES SLOTS [FILES_PER_TASK]

runs it on each file of a folder, checks the results, and prints time and memory as JSON. With 0 files per Batch task,
the flow chooses the number.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect import State

from flows.topn import run_workload, workload_flow
from tasks.model.pool import PoolOptions
from tasks.workload.base import Workload

# A million files take longer than the default timeout.
TIMEOUT_MINUTES = 180

SIMULATED = Workload(name="simulated", command="true", outputs=("result.txt",))


@workload_flow("simulated")
def simulated(inputs: list[str], output_folder: str, nodes: int, slots: int, files_per_task: int | None) -> State[Any]:
    """Run simulated Batch tasks on the inputs."""
    return run_workload(
        SIMULATED,
        inputs,
        output_folder,
        files_per_task=files_per_task,
        pool_options=PoolOptions(nodes=nodes, slots_per_node=slots),
        timeout_minutes=TIMEOUT_MINUTES,
        refresh=True,
    )


def main() -> int:
    """Run the flow, check the results, and print the measurements."""
    folder, outputs = sys.argv[1:3]
    nodes, slots, files_per_task = (int(argument) for argument in [*sys.argv[3:], "1"][:3])
    started = time.monotonic()
    report: Any = simulated([f"{folder}/*"], outputs, nodes, slots, files_per_task or None)
    wall_seconds = time.monotonic() - started
    wrong = [
        file.file.name
        for file in report.files
        if file.result is None or file.result.outputs != {"result.txt": file.result.provenance.task_id.encode()}
    ]
    if wrong or len(report.files) != len(list(Path(folder).iterdir())):
        raise RuntimeError(f"wrong results: {wrong}")
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps(
            {
                "files": len(report.files),
                "wall_seconds": wall_seconds,
                "cpu_seconds": usage.ru_utime + usage.ru_stime,
                "peak_mib": usage.ru_maxrss / 1024,
                "steps": [asdict(step) for step in report.steps],
            },
            default=str,
        )
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
