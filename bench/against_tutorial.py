"""The flow compared with the tutorial's client, on the same files and simulated nodes, with one file per Batch task.

Nodes take 30 s to start. Each response of both accounts is delayed by 20 ms, as from a nearby region. The tutorial's
client uses the pool of its own configuration, two nodes with one slot each, or the flow's pool.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.measure import figures, in_turn
from bench.simulated_azure import simulated_azure, write_files

NODE_START_SECONDS = 30
DELAY_SECONDS = 0.02


@dataclass(frozen=True)
class Pool:
    """The number of nodes that a client requests, and of slots per node."""

    nodes: int
    slots: int


FLOW_POOL = Pool(20, 2)
TUTORIAL_POOL = Pool(2, 1)

# Seconds that a Batch task takes, by number of files. Short Batch tasks favor the tutorial's two nodes, which would
# need ten minutes for 2,000 files at half a second each.
TASK_SECONDS_BY_COUNT = {200: 0.5, 2000: 0.1}
TASK_SECONDS_BY_COUNT_IN_ONE_POOL = {200: 0.5, 2000: 0.5}


def against_tutorial(folder: Path, environment: Mapping[str, str]) -> dict[str, object]:
    """Compare the two, each with its own pool."""
    return _compared(TASK_SECONDS_BY_COUNT, TUTORIAL_POOL, folder, environment)


def against_tutorial_in_one_pool(folder: Path, environment: Mapping[str, str]) -> dict[str, object]:
    """Compare the two, both with the flow's pool."""
    return _compared(TASK_SECONDS_BY_COUNT_IN_ONE_POOL, FLOW_POOL, folder, environment)


def _compared(
    task_seconds_by_count: Mapping[int, float], tutorial_pool: Pool, folder: Path, environment: Mapping[str, str]
) -> dict[str, object]:
    """Compare the two at each number of files. Each client is a new process."""
    found: dict[str, object] = {}
    for count, task_seconds in task_seconds_by_count.items():
        count_folder = folder / str(count)
        inputs, outputs = write_files(count_folder / "inputs", count), count_folder / "outputs"
        outputs.mkdir()
        ours = f"{count} files by the flow with {FLOW_POOL.nodes} nodes of {FLOW_POOL.slots} slots"
        other = f"by the tutorial's client with {tutorial_pool.nodes} of {tutorial_pool.slots}"
        commands = {
            name: [sys.executable, "-m", module, str(inputs), str(outputs), str(pool.nodes), str(pool.slots)]
            for name, module, pool in (
                (ours, "bench.own_client", FLOW_POOL),
                (other, "bench.tutorial_client", tutorial_pool),
            )
        }
        options = [f"--node-start-seconds={NODE_START_SECONDS}", f"--task-seconds={task_seconds}"]
        with simulated_azure(count_folder, environment, options, delay_seconds=DELAY_SECONDS) as clients_environment:
            found[str(count)] = figures(in_turn(commands, clients_environment, is_warm=True), ours, other)
    return found
