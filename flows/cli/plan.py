"""The `topn plan` command: what a run would do, without doing it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from flows.cli.exit_status import EXIT_USAGE
from flows.cli.interruption import Interruption
from flows.console import say
from tasks.errors import UsageError
from tasks.model.files import InputFile
from tasks.model.inputs import find_inputs
from tasks.model.plan import Plan
from tasks.model.pool import DEFAULT_POOL, PoolOptions
from tasks.text import printable

# A list that a person reads; the numbers above it count all.
MAX_NAMES = 20


def run_plan(options: argparse.Namespace, interruption: Interruption) -> int:
    """Print what a run with these options would do, and create nothing.

    Raises:
        ConfigurationError: The results are in a blob container, and no Azure is configured.
    """
    from tasks.steps.plan import make_plan  # noqa: PLC0415 - imports Prefect, which is slow
    from tasks.workload.results_store import results_store  # noqa: PLC0415 - imports the SDKs, which is slow
    from tasks.workload.word_counts import word_count_workload  # noqa: PLC0415 - as above

    del interruption
    usable, refused = sort_inputs(options.inputs)
    workload = word_count_workload(options.num_words, options.ignore_case)
    store = results_store()
    planned = (
        make_plan(usable, workload, store, refresh=options.refresh, files_per_task=options.files_per_task)
        if usable
        else None
    )
    print_plan(planned, refused, DEFAULT_POOL)
    return EXIT_USAGE if refused else 0


def sort_inputs(inputs: Sequence[str]) -> tuple[list[str], list[str]]:
    """Tell the inputs that can be used from those that cannot; returns the first, and why not the others."""
    usable: list[str] = []
    refused: list[str] = []
    for given in inputs:
        try:
            usable += find_inputs([given])
        except UsageError as error:
            refused.append(str(error))
    return usable, refused


def print_plan(plan: Plan | None, refused: Sequence[str], pool: PoolOptions) -> None:
    """Print what a run of the usable inputs would do, and what it would refuse."""
    unchanged = [file for file in plan.files if file.content_key in plan.unchanged] if plan else []
    new = [file for file in plan.files if file.content_key not in plan.unchanged] if plan else []
    batch_tasks = plan.batch_task_count if plan else 0
    print(f"{len(new)} new, {len(unchanged)} unchanged, {len(refused)} refused.")
    if batch_tasks:
        nodes = min(pool.nodes, -(-batch_tasks // pool.slots))
        print(
            f"A run would add {_so_many(batch_tasks, 'Batch task')}, on up to {_so_many(nodes, 'node')} "
            f"({pool.vm_size}) with {_so_many(pool.slots, 'slot')} each."
        )
    else:
        print("A run would create nothing.")
    _print_names("new", new)
    _print_names("unchanged", unchanged)
    for sentence in refused:
        say(f"refused: {sentence}")
    if refused:
        say("A run refuses all of its inputs when it refuses one.")


def _so_many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _print_names(kind: str, files: Sequence[InputFile]) -> None:
    for file in files[:MAX_NAMES]:
        print(f"{kind}: {printable(file.name)} ({file.size_bytes:,} bytes)")
    if len(files) > MAX_NAMES:
        print(f"{kind}: and {len(files) - MAX_NAMES:,} more")
