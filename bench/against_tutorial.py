"""The flow against the tutorial's client: the same files, simulated nodes, one file a Batch task.

Nodes take 30 s to start, and each answer of both accounts is 20 ms late, as from a region near by. The tutorial's client has
the pool of its own configuration, two nodes of one slot each, or the flow's.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.measure import figures, in_turn
from bench.simulated_azure import simulated_azure, write_files

NODE_START_SECONDS = 30
ANSWER_SECONDS = 0.02


@dataclass(frozen=True)
class Pool:
    """How many nodes a client asks for, and how many Batch tasks run side by side on each."""

    nodes: int
    slots: int


FLOWS_OWN = Pool(20, 2)
TUTORIALS_OWN = Pool(2, 1)

# How long a Batch task takes, in seconds, for each number of files. The shorter it is, the better for the tutorial's two
# nodes, which would need ten minutes for the larger number at half a second each.
COMPARED = {200: 0.5, 2000: 0.1}
COMPARED_IN_ONE_POOL = {200: 0.5, 2000: 0.5}


def against_tutorial(folder: Path, environment: Mapping[str, str]) -> dict[str, object]:
    """Compare the two, each with the pool that it would have."""
    return _compared(COMPARED, TUTORIALS_OWN, folder, environment)


def against_tutorial_in_one_pool(folder: Path, environment: Mapping[str, str]) -> dict[str, object]:
    """Compare the two with the flow's pool for both."""
    return _compared(COMPARED_IN_ONE_POOL, FLOWS_OWN, folder, environment)


def _compared(
    numbers: Mapping[int, float], tutorials: Pool, folder: Path, environment: Mapping[str, str]
) -> dict[str, object]:
    """Compare the two at each number of files, each client started anew."""
    found: dict[str, object] = {}
    for count, task_seconds in numbers.items():
        beside = folder / str(count)
        inputs, outputs = write_files(beside / "inputs", count), beside / "outputs"
        outputs.mkdir()
        ours = f"{count} files by the flow with {FLOWS_OWN.nodes} nodes of {FLOWS_OWN.slots} slots"
        other = f"by the tutorial's client with {tutorials.nodes} of {tutorials.slots}"
        commands = {
            name: [sys.executable, "-m", module, str(inputs), str(outputs), str(pool.nodes), str(pool.slots)]
            for name, module, pool in (
                (ours, "bench.own_client", FLOWS_OWN),
                (other, "bench.tutorial_client", tutorials),
            )
        }
        options = [f"--node-start-seconds={NODE_START_SECONDS}", f"--task-seconds={task_seconds}"]
        with simulated_azure(beside, environment, options, answer_seconds=ANSWER_SECONDS) as clients_environment:
            found[str(count)] = figures(in_turn(commands, clients_environment, is_warm=True), ours, other)
    return found
