"""`topn plan`: what a run would do, without doing it."""

from __future__ import annotations

from collections.abc import Sequence

from flows.display import say
from tasks.errors import UsageError
from tasks.inputs import find_inputs
from tasks.models import InputFile, Plan, PoolOptions
from tasks.names import shown

# A list that a person reads; the numbers above it count all.
MOST_NAMES = 20


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
    for file in files[:MOST_NAMES]:
        print(f"{kind}: {shown(file.name)} ({file.size_bytes:,} bytes)")
    if len(files) > MOST_NAMES:
        print(f"{kind}: and {len(files) - MOST_NAMES:,} more")
