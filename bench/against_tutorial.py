"""The flow against the tutorial's client: the same files, the same simulated nodes, one file a Batch task.

Nodes take 30 s to start, a Batch task takes half a second, and each answer of both accounts is 20 ms late, as from a region
near by. The tutorial's client is compared with the same pool, and with the two nodes of one slot each that its own
configuration has.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.measure import figures, in_turn
from bench.simulated_azure import simulated_azure, write_files

NODE_START_SECONDS = 30
TASK_SECONDS = 0.5
ANSWER_SECONDS = 0.02


@dataclass(frozen=True)
class Pool:
    """How many nodes a client asks for, and how many Batch tasks run side by side on each."""

    nodes: int
    slots: int


USUAL = Pool(20, 2)
TUTORIALS_OWN = Pool(2, 1)

# The tutorial's own pool would need ten minutes for the larger number.
COMPARED = {200: (USUAL, TUTORIALS_OWN), 2000: (USUAL,)}


def against_tutorial(folder: Path, environment: Mapping[str, str]) -> dict[str, object]:
    """Compare the two at both numbers of files, each client started anew."""
    options = [f"--node-start-seconds={NODE_START_SECONDS}", f"--task-seconds={TASK_SECONDS}"]
    found: dict[str, object] = {}
    with simulated_azure(folder, environment, options, answer_seconds=ANSWER_SECONDS) as clients_environment:
        for count, pools in COMPARED.items():
            inputs, outputs = write_files(folder / f"{count}", count), folder / f"out-{count}"
            outputs.mkdir()

            def command(client: str, pool: Pool, inputs: Path = inputs, outputs: Path = outputs) -> list[str]:
                program = [sys.executable, "-m", f"bench.{client}"]
                return [*program, str(inputs), str(outputs), str(pool.nodes), str(pool.slots)]

            ours = f"{count} files by the flow"
            commands = {ours: command("own_client", USUAL)} | {
                f"by the tutorial's client with {pool.nodes} nodes of {pool.slots}": command("tutorial_client", pool)
                for pool in pools
            }
            runs = in_turn(commands, clients_environment, is_warm=True)
            found[str(count)] = [figures(runs, ours, other) for other in commands if other != ours]
    return found
