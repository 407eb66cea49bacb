"""Run commands in turn, and compare their times and memory.

The speed of the machine changes from minute to minute. The ratio of two commands that ran in the same round does not.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ROUNDS = 5

# Starts a command and reports its time and memory. Linux reports a peak for a process that is at least that of the
# process that started it. Therefore the starter is an interpreter without modules. The command does not inherit the
# pipe, because processes that outlive the command would keep it open.
STARTER = """
import os, sys, time
os.set_inheritable(int(sys.argv[1]), False)
started = time.monotonic()
_, status, usage = os.wait4(os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ), 0)
seconds = time.monotonic() - started
code = os.waitstatus_to_exitcode(status)
figures = [seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024]
os.write(int(sys.argv[1]), str(figures).encode())
sys.exit(code if code >= 0 else 128 - code)
"""


@dataclass(frozen=True)
class Run:
    """Time and memory of one run of a command and its child processes.

    `peak_mib` is the peak of the largest process, and at least about 9 MiB, that of a bare interpreter.
    """

    wall_seconds: float
    cpu_seconds: float
    peak_mib: float


def in_turn(
    commands: Mapping[str, Sequence[str]],
    environment: Mapping[str, str],
    rounds: int = ROUNDS,
    *,
    is_warm: bool = False,
) -> dict[str, list[Run]]:
    """Run each command once per round, after an uncounted warm-up round unless `is_warm`. Each must succeed."""
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    for number in range(is_warm, rounds + 1):
        for name, command in commands.items():
            run = _run(command, environment)
            if number:
                runs[name].append(run)
    return runs


def figures(runs: Mapping[str, Sequence[Run]], ours: str, other: str) -> dict[str, object]:
    """Compare two commands round by round, print the ratio of their wall times, and return all measurements."""
    ratios = [a.wall_seconds / b.wall_seconds for a, b in zip(runs[ours], runs[other], strict=True)]
    cpu_ratios = [a.cpu_seconds / b.cpu_seconds for a, b in zip(runs[ours], runs[other], strict=True)]
    peak_ratio = _median_of(runs[ours], "peak_mib") / _median_of(runs[other], "peak_mib")
    print(
        f"{ours} / {other}: {statistics.median(ratios):.3g} (from {min(ratios):.3g} to {max(ratios):.3g} in "
        f"{len(ratios)} rounds; medians {_median_of(runs[ours], 'wall_seconds'):.3g} s and "
        f"{_median_of(runs[other], 'wall_seconds'):.3g} s); CPU {statistics.median(cpu_ratios):.3g}, "
        f"memory {peak_ratio:.3g}"
    )
    return {
        "title": f"{ours} / {other}",
        **ratio_figures(ratios),
        "cpu_ratio_median": round(statistics.median(cpu_ratios), 3),
        "memory_ratio": round(peak_ratio, 3),
        "ours_seconds": [round(run.wall_seconds, 3) for run in runs[ours]],
        "other_seconds": [round(run.wall_seconds, 3) for run in runs[other]],
        "ours_peak_mib": round(_median_of(runs[ours], "peak_mib"), 1),
        "other_peak_mib": round(_median_of(runs[other], "peak_mib"), 1),
    }


def ratio_figures(ratios: Sequence[float]) -> dict[str, object]:
    """Return the ratios of all rounds and their median."""
    return {
        "ratio_median": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
    }


def median_seconds(runs: Sequence[Run]) -> float:
    """Return the median wall time in seconds."""
    return _median_of(runs, "wall_seconds")


def _median_of(runs: Sequence[Run], figure: str) -> float:
    return float(statistics.median(getattr(run, figure) for run in runs))


def _run(command: Sequence[str], environment: Mapping[str, str]) -> Run:
    return Run(*run_measured(STARTER, command, environment)[1])


def run_measured(
    starter: str, command: Sequence[str], environment: Mapping[str, str]
) -> tuple[str, tuple[float, float, float]]:
    """Run a command with a program that measures it; return its output, and wall seconds, CPU seconds and peak MiB.

    Args:
        starter: The program. Its arguments are the descriptor to which it writes the figures, and the command.
        command: The command.
        environment: The environment of the command.
    """
    reading, writing = os.pipe()
    with open(reading) as figures_pipe:
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", starter, str(writing), *command],
                env=dict(environment),
                pass_fds=[writing],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            )
        finally:
            os.close(writing)
        stdout, stderr = process.communicate()
        figures = figures_pipe.read()
    if process.returncode:
        raise RuntimeError(f"{command} failed with {process.returncode}: {stderr}")
    return stdout, tuple(json.loads(figures))
