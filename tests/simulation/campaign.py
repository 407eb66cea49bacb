"""Play histories from seeds, print the seeds that fail, and print the rates of histories and requests."""

from __future__ import annotations

import argparse
import os
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simulation.history import Outcome

# Number of seeds that a process plays before it reports.
SEEDS_PER_TASK = 10


def main(argv: Sequence[str] | None = None) -> int:
    """Play seeds and print those that fail; return 1 if any fails."""
    parser = argparse.ArgumentParser(prog="simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=500, metavar="N", help="number of seeds (default: 500)")
    parser.add_argument("--first", type=int, default=0, metavar="K", help="the first seed (default: 0)")
    parser.add_argument("--seed", type=int, metavar="N", help="play one seed and print its trace")
    parser.add_argument("--seconds", type=float, metavar="S", help="stop after S seconds instead of --seeds")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, metavar="P", help="number of processes")
    parser.add_argument("--fail-fast", action="store_true", help="stop after the first seed that fails")
    options = parser.parse_args(argv)
    if options.seed is not None:
        return replay(options.seed)
    return play_all(options.first, options.seeds, options.seconds, options.processes, fail_fast=options.fail_fast)


def play_all(first: int, seeds: int, seconds: float | None, processes: int, *, fail_fast: bool = False) -> int:
    """Play seeds, and print those that fail."""
    started_at = time.monotonic()
    give_up_at = None if seconds is None else started_at + seconds
    packs = _packs(first, None if seconds is not None else first + seeds, give_up_at)
    histories = requests = 0
    failed: list[int] = []
    for found in _play_packs(packs, processes):
        for seed, sentences, sent in found:
            histories += 1
            requests += sent
            if sentences:
                failed.append(seed)
                print(f"seed {seed}: {'; '.join(sentences)}", flush=True)
        if failed and fail_fast:
            break
    took = time.monotonic() - started_at
    print(
        f"{histories} histories, {requests} requests in {took:.1f} s: "
        f"{60 * histories / took:.0f} histories a minute, {requests / took:.0f} requests a second"
    )
    print(f"{histories - len(failed)} passed, {len(failed)} failed")
    if failed:
        print(f"Replay one with `make simulate SEED={failed[0]}`.")
    return 1 if failed else 0


def _play_packs(packs: Iterator[range], processes: int) -> Iterator[list[tuple[int, list[str], int]]]:
    """Play packs of seeds in this process, or in several others."""
    if processes == 1:
        _prepare()
        yield from map(play_pack, packs)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_prepare) as pool:
        waiting = [pool.submit(play_pack, pack) for pack in islice(packs, 2 * processes)]
        while waiting:
            yield waiting.pop(0).result()
            waiting += [pool.submit(play_pack, pack) for pack in islice(packs, 1)]


def _packs(first: int, last: int | None, give_up_at: float | None) -> Iterator[range]:
    while (last is None or first < last) and (give_up_at is None or time.monotonic() < give_up_at):
        pack = range(first, first + SEEDS_PER_TASK if last is None else min(first + SEEDS_PER_TASK, last))
        first = pack.stop
        yield pack


def _prepare() -> None:
    # Prefect reads this on import. The simulation has no server.
    os.environ["PREFECT_LOGGING_TO_API_ENABLED"] = "false"


def play_pack(seeds: Sequence[int]) -> list[tuple[int, list[str], int]]:
    """Play seeds; return the violations and the number of requests of each."""
    return [(seed, *_summary(seed)) for seed in seeds]


def _summary(seed: int) -> tuple[list[str], int]:
    from simulation.history import play  # noqa: PLC0415 - takes seconds, and must follow `_prepare`
    from simulation.invariants import violations  # noqa: PLC0415 - as above
    from simulation.plan import plan_of  # noqa: PLC0415 - as above

    try:
        outcome = play(plan_of(seed))
        return violations(outcome), sum(outcome.requests.values())
    except Exception as error:  # noqa: BLE001 - an error in the simulation itself is a failure
        return [f"{type(error).__name__}: {error} ({traceback.format_exc().splitlines()[-2].strip()})"], 0


def replay(seed: int) -> int:
    """Play one seed and print its trace."""
    _prepare()
    from simulation.history import play  # noqa: PLC0415 - as above
    from simulation.invariants import violations  # noqa: PLC0415 - as above
    from simulation.plan import plan_of  # noqa: PLC0415 - as above

    plan = plan_of(seed)
    print(plan)
    outcome = play(plan)
    print("\n".join(outcome.trace))
    show(outcome)
    sentences = violations(outcome)
    print("\n".join(sentences) or "No violations.")
    return 1 if sentences else 0


def show(outcome: Outcome) -> None:
    """Print the result of each client."""
    print(f"fired: {outcome.fired}")
    for life in outcome.lives:
        files = (
            [(file.file.name, file.status, file.error and file.error.message) for file in life.report.files]
            if life.report
            else None
        )
        print(f"{life.exit} status={life.status} error={life.error!r} files={files}\n{life.stderr}")
