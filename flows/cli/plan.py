"""The `topn plan` command: show what a run would do."""

from __future__ import annotations

import argparse
from collections.abc import Container, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flows.cli.exit_status import EXIT_USAGE
from flows.cli.options import limit_of, local_files, pool_options_of, workload_of
from flows.console import print_json_document, print_message, print_result
from tasks.errors import ServiceError, UsageError
from tasks.model.files import InputFile
from tasks.model.inputs import Blobs, FoundFile, LocalFiles, find_inputs
from tasks.model.naming import FILES_FOLDER
from tasks.model.plan import Plan
from tasks.model.pool import PoolOptions, describe_cores
from tasks.model.vm_size import vm_size
from tasks.report.output_folder import find_files, outputs_in
from tasks.report.price import describe_limit, highest_usd
from tasks.text import printable

if TYPE_CHECKING:
    from tasks.azure.blob import BlobAccount

# The lists are for people. The counts above them include all files.
MAX_LISTED_FILES = 20


def run_plan(options: argparse.Namespace) -> int:
    """Print what a run with these options would do. Create nothing.

    Raises:
        ConfigurationError: A pool option or a setting is invalid, or results are stored in a blob container and no Azure
            is configured.
    """
    from tasks.azure.accounts import blob_account  # noqa: PLC0415 - as below
    from tasks.azure.blob_inputs import BlobFinder  # noqa: PLC0415 - as below
    from tasks.azure.settings import read_settings, results_location  # noqa: PLC0415 - imports the SDKs, which is slow
    from tasks.steps.merge import expected_merges  # noqa: PLC0415 - imports Prefect, which is slow
    from tasks.steps.plan import create_plan, kept_partials  # noqa: PLC0415 - as above
    from tasks.steps.pool_selection import check_pool_options  # noqa: PLC0415 - as above
    from tasks.workload.results_store import results_store  # noqa: PLC0415 - imports the SDKs, which is slow

    settings, pool_options = read_settings(), pool_options_of(options)
    check_pool_options(pool_options, settings)
    minutes, price = limit_of(options, pool_options, settings)
    workload = workload_of(options)
    local = local_files(options, workload.corpus_names)
    account = blob_account() if local.uses_storage and settings.is_configured else None
    files, invalid = sort_inputs(
        local, workload.suffixes, BlobFinder(account, results_location()) if account else None, account
    )
    store = results_store("", print_message)
    planned, merges = None, 0
    if files:
        partials: Container[str] = _Everything()
        if options.corpus and settings.is_configured:
            try:
                partials = kept_partials(blob_account(), FILES_FOLDER)
            except ServiceError as error:
                print_message(
                    f"The partials of the corpus cannot be listed, so some files may be counted again: {error}"
                )
        planned = create_plan(
            files,
            workload,
            store,
            partials,
            refresh=options.refresh,
            files_per_task=options.files_per_task,
            merge=False,
        )
        merges = expected_merges(planned) if options.corpus else 0
    if options.json:
        limits = {"minutes": minutes, "usd": highest_usd(minutes, pool_options, price)}
        print_json_document({**plan_document(planned, invalid, pool_options, merges), **limits})
    else:
        needs = [describe_limit(minutes, pool_options, price), *needs_of(pool_options)]
        print_plan(planned, invalid, pool_options, needs if settings.is_configured else (), merges)
    return EXIT_USAGE if invalid else 0


class _Everything(Container[str]):
    """All names: without an Azure, nobody knows which partials exist."""

    def __contains__(self, name: object) -> bool:
        return True


def needs_of(pool: PoolOptions) -> list[str]:
    """Return what a run needs of an Azure, and what only `topn check` can check."""
    image = f"The nodes need an image for {vm_size(pool.vm_size).requirements}."
    unchecked = "Not checked: the credentials, the image and the network. Run `topn check`."
    return [unchecked] if pool.pool_id is not None else [describe_cores(pool), image, unchecked]


def sort_inputs(
    local: LocalFiles, suffixes: Sequence[str], blobs: Blobs | None = None, account: BlobAccount | None = None
) -> tuple[list[FoundFile], list[str]]:
    """Return the files of the valid inputs, and the errors of the others; the error of all if they clash."""
    outputs = outputs_in(local, account)
    valid: list[str] = []
    invalid: list[str] = []
    for given in local.inputs:
        try:
            find_inputs(replace(local, inputs=[given]), outputs, blobs)
            valid.append(given)
        except UsageError as error:
            invalid.append(str(error))
    try:
        return find_files(replace(local, inputs=valid), suffixes, blobs, account) if valid else [], invalid
    except UsageError as error:
        return [], [*invalid, str(error)]


def plan_document(plan: Plan | None, invalid: Sequence[str], pool: PoolOptions, merges: int) -> dict[str, Any]:
    """Return what a run would do, for programs. The limits of the pool are not what the run needs."""
    new, unchanged = _sort_files(plan)
    return {
        "new": [{"file": file.name, "bytes": file.size_bytes} for file in new],
        "unchanged": [{"file": file.name, "bytes": file.size_bytes} for file in unchanged],
        "invalid": list(invalid),
        "batch_tasks": plan.batch_task_count if plan else 0,
        "merges": merges,
        **pool.model_dump(mode="json", exclude={"setup"}),
    }


def _sort_files(plan: Plan | None) -> tuple[list[InputFile], list[InputFile]]:
    """Return the new and the unchanged files."""
    files = plan.files if plan else ()
    known: Container[str] = plan.unchanged if plan else ()
    return (
        [file for file in files if file.content_key not in known],
        [file for file in files if file.content_key in known],
    )


def print_plan(
    plan: Plan | None, invalid: Sequence[str], pool: PoolOptions, needs: Sequence[str], merges: int = 0
) -> None:
    """Print what a run of the valid inputs would do, what it needs, and the errors of the invalid ones."""
    new, unchanged = _sort_files(plan)
    batch_tasks = plan.batch_task_count if plan else 0
    print_result(f"{len(new)} new, {len(unchanged)} unchanged, {len(invalid)} invalid.")
    if batch_tasks and pool.pool_id is not None:
        print_result(f"A run would add {_counted(batch_tasks, 'Batch task')}, on the existing pool `{pool.pool_id}`.")
    elif batch_tasks:
        needed = -(-batch_tasks // pool.slots)
        spot = f" and {_counted(min(pool.spot_nodes, needed), 'spot node')}" if pool.spot_nodes else ""
        print_result(
            f"A run would add {_counted(batch_tasks, 'Batch task')}, on up to {_counted(min(pool.nodes, needed), 'node')}"
            f"{spot} ({pool.vm_size}) with {_counted(pool.slots, 'slot')} each."
        )
    else:
        print_result("A run would create nothing.")
    if merges:
        print_result(f"{_counted(merges, 'more Batch task')} would merge the counts of all files.")
    for sentence in needs if batch_tasks else ():
        print_result(sentence)
    _print_names("new", new)
    _print_names("unchanged", unchanged)
    for message in invalid:
        print_message(f"invalid: {message}")
    if invalid:
        print_message("A run starts only if all inputs are valid.")


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _print_names(kind: str, files: Sequence[InputFile]) -> None:
    for file in files[:MAX_LISTED_FILES]:
        print_result(f"{kind}: {printable(file.name)} ({file.size_bytes:,} bytes)")
    if len(files) > MAX_LISTED_FILES:
        print_result(f"{kind}: and {len(files) - MAX_LISTED_FILES:,} more")
