"""Plan a run: find the input files, hash them, and divide those without a result into packs and chunks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from prefect.runtime import flow_run

from tasks.azure.accounts import blob_account
from tasks.azure.blob import BlobAccount
from tasks.azure.blob_inputs import BlobFinder
from tasks.azure.settings import results_location
from tasks.clock import clock_warning
from tasks.errors import NotFoundError, UsageError
from tasks.model.chunks import Chunk, Pack
from tasks.model.corpus import group_bits, position_of
from tasks.model.files import InputFile, Source
from tasks.model.inputs import FoundFile, LocalFiles
from tasks.model.naming import FILES_FOLDER, PARTIALS_CONTAINER
from tasks.model.output_names import output_name
from tasks.model.outputs import Scratch
from tasks.model.plan import Plan
from tasks.model.urls import parse_place
from tasks.model.verdict import Category, FileError, StoredResult, Verdict, counted
from tasks.progress import advance, notify
from tasks.report.output_folder import find_files
from tasks.steps.step import call_hook, log, step, warn
from tasks.text import printable, quantity
from tasks.workload.base import Workload
from tasks.workload.results_store import ResultsStore, results_store

# With more files than this, files share Batch tasks: 100,000 small files become 1,000 Batch tasks.
MAX_SINGLE_FILE_TASKS = 1000
MAX_PACK_FILES = 100
MAX_PACK_BYTES = 16 * 1024 * 1024

# Batch rejects a request of more than 1 MB, and the URL of each blob is part of it. A signature by a user delegation key
# and the rest of the entry have up to 700 characters.
# Source: https://learn.microsoft.com/rest/api/batchservice/task/add-task
MAX_PACK_URL_CHARACTERS = 700_000
SIGNATURE_CHARACTERS = 700

# Up to this number of packs, each pack is its own chunk, so the Prefect UI shows each one.
MAX_SINGLE_PACK_CHUNKS = 20

# Each chunk has three task runs of about 50 ms of server time each. With the merges and the other steps, this limit keeps a
# run below 300 task runs.
MAX_CHUNKS = 80

# The same limit for the files of packs whose inputs could not be downloaded.
MAX_EXTRA_CHUNKS = 5

# Start of the error codes of Batch for a blob that a node could not download.
BLOB_FAILURE = "Blob"

# The number of Batch tasks that one request can add.
PREFERRED_CHUNK_PACKS = 100

READ_BYTES = 1024 * 1024


@step("plan")
def plan_files(local: LocalFiles, workload: Workload, refresh: bool, files_per_task: int | None) -> Plan:
    """Plan which files to process.

    Raises:
        UsageError: An input is missing or cannot be read, two clash, or something is in the way of an output.
    """
    if warning := clock_warning():
        warn(warning)
    store = results_store(str(flow_run.id), warn)
    account = blob_account() if local.uses_storage else None
    finder = BlobFinder(account, results_location()) if account and local.has_blobs else None
    files = find_files(local, workload.suffixes, finder, account)
    partials = kept_partials(blob_account(), FILES_FOLDER) if workload.merge else ()
    plan = create_plan(files, workload, store, partials, refresh=refresh, files_per_task=files_per_task)
    unchanged, failed = (
        sum(file.content_key in known for file in plan.files) for known in (plan.unchanged, plan.failures)
    )
    unreadable = f", {failed:,} unreadable" if failed else ""
    log(
        f"{quantity(len(files), 'file')}: {len(files) - unchanged - failed:,} new, {unchanged:,} unchanged{unreadable}."
    )
    return plan


def create_plan(
    found: Sequence[FoundFile],
    workload: Workload,
    store: ResultsStore,
    partials: Container[str] = (),
    *,
    refresh: bool = False,
    files_per_task: int | None = None,
    merge: bool = True,
) -> Plan:
    """Hash the input files, find stored results by content, and pack the files without a result.

    Args:
        found: The input files.
        workload: The workload to run on each file.
        store: The store of known results.
        partials: Names of the blobs with partials. With a merge, a result without its partial is not used.
        refresh: Ignore stored results.
        files_per_task: Number of files per Batch task; None chooses it by the number of files.
        merge: Let the store merge its files.

    Raises:
        UsageError: A file cannot be read.
    """
    sources: dict[Source, Source] = {}
    files = tuple(_input_file(file, workload, sources) for file in found)
    by_content = _without_copies(files)
    failures = {
        file.content_key: FileError(category=Category.INPUT, message=f"{printable(file.name)} {each.problem}")
        for file, each in zip(files, found, strict=True)
        if each.problem
    }
    known: dict[str, StoredResult] = {}
    if not refresh:
        known = {
            file.content_key: result
            for file, result in _stored(store, by_content.values(), merge=merge)
            if result is not None
            and (workload.merge is None or (result.partial is not None and result.partial.blob in partials))
            and _is_accepted(workload, file, result)
        }
    new = [file for key, file in by_content.items() if key not in known and key not in failures]
    if workload.merge is not None and group_bits(len(files)):
        # In the order of the groups, so that the merge of a group reads few archives.
        new.sort(key=lambda file: position_of(file.name))
    return Plan(files=files, unchanged=known, chunks=_chunks(group_into_packs(new, files_per_task)), failures=failures)


def kept_partials(account: BlobAccount, folder: str) -> frozenset[str]:
    """Return the names of the blobs with partials in a folder of their container, which need not exist."""
    try:
        return frozenset(blob.name for blob in account.list_blobs(PARTIALS_CONTAINER, folder))
    except NotFoundError:
        return frozenset()


def _stored(
    store: ResultsStore, files: Iterable[InputFile], *, merge: bool
) -> Iterator[tuple[InputFile, StoredResult | None]]:
    """Yield each file with its stored result: blobs of one folder together, others one by one."""
    scratch = Scratch()
    blobs: dict[Source, dict[str, InputFile]] = {}
    for file in files:
        if file.source is None:
            yield file, store.get(file.content_key, scratch)
        else:
            blobs.setdefault(file.source, {})[file.content_key] = file
    for source, by_key in blobs.items():
        for key, result in store.find(source, by_key.keys(), scratch, merge=merge).items():
            yield by_key[key], result


def _is_accepted(workload: Workload, file: InputFile, result: StoredResult) -> bool:
    """Return whether the workload accepts a stored result. One that it cannot read is not used."""
    unreadable = FileError(category=Category.PROGRAM, message="The workload cannot read it")
    return call_hook(workload, workload.output_error, unreadable, counted(file, result), result.outputs) is None


def with_results(plan: Plan, results: Mapping[str, StoredResult], files_per_task: int | None) -> Plan:
    """Return the plan of what remains to be done once there are more results, by content key."""
    new = [file for chunk in plan.chunks for file in chunk.files if file.content_key not in results]
    return replace(plan, unchanged={**plan.unchanged, **results}, chunks=_chunks(group_into_packs(new, files_per_task)))


def split_failed_packs(plan: Plan, verdicts: Mapping[str, Verdict]) -> tuple[Chunk, ...]:
    """Return chunks with a Batch task for each blob of a pack whose inputs could not all be downloaded.

    Batch does not start a Batch task if it cannot download one of its inputs, so the others have no result either.
    """
    files = [
        file
        for chunk in plan.chunks
        for pack in chunk.packs
        if len(pack.files) > 1 and any(file.etag for file in pack.files)
        for file in pack.files
        if isinstance(error := verdicts.get(file.content_key), FileError) and error.code.startswith(BLOB_FAILURE)
    ]
    if files:
        notify(
            f"Some blobs could not be downloaded. {len(files):,} files that shared Batch tasks with them are processed one by one."
        )
        for stage in ("staged", "submitted", "completed"):
            advance(stage, done=-len(files))
    return _chunks(group_into_packs(files, 1), MAX_EXTRA_CHUNKS)


def _without_copies(files: Sequence[InputFile]) -> dict[str, InputFile]:
    """Return the first file of each content, by content key, with the paths of the other files as its copies."""
    by_content: dict[str, list[InputFile]] = {}
    for file in files:
        by_content.setdefault(file.content_key, []).append(file)
    return {
        key: replace(first, copies=tuple(file.path for file in others)) if others else first
        for key, (first, *others) in by_content.items()
    }


def _input_file(found: FoundFile, workload: Workload, sources: dict[Source, Source]) -> InputFile:
    if found.etag:
        source = Source(workload=workload.sha256, container=found.container, folder=found.folder)
        blob = hashlib.sha256(
            json.dumps([found.container, parse_place("The input", found.path).path, found.etag]).encode()
        )
        return InputFile(
            path=found.path,
            name=found.name,
            output=output_name(found.name),
            sha256="",
            size_bytes=found.size_bytes,
            content_key=workload.result_key(blob.hexdigest(), found.name),
            etag=found.etag,
            # All blobs of a folder share one object, which saves memory.
            source=sources.setdefault(source, source),
        )
    digest = hashlib.sha256()
    size_bytes = 0
    try:
        with Path(found.path).open("rb") as file:
            while block := file.read(READ_BYTES):
                digest.update(block)
                size_bytes += len(block)
    except OSError as error:
        raise UsageError(f"{printable(found.name)} cannot be read ({error.strerror}).") from error
    return InputFile(
        path=found.path,
        name=found.name,
        output=output_name(found.name),
        sha256=digest.hexdigest(),
        size_bytes=size_bytes,
        content_key=workload.result_key(digest.hexdigest(), found.name),
    )


def pack_size(file_count: int) -> int:
    """Return the default number of files per Batch task: 1 for up to 1,000 files, then more, at most 100."""
    return min(MAX_PACK_FILES, -(-file_count // MAX_SINGLE_FILE_TASKS)) or 1


def group_into_packs(files: Sequence[InputFile], files_per_task: int | None) -> list[Pack]:
    """Group files into packs, in their order.

    Without `files_per_task`, a pack of several files has at most MAX_PACK_BYTES. The URLs of its blobs fit into a request.
    """
    max_files = files_per_task or pack_size(len(files))
    max_bytes = None if files_per_task else MAX_PACK_BYTES
    packs: list[Pack] = []
    open_files: list[InputFile] = []
    open_bytes = open_characters = 0
    for file in files:
        characters = len(file.path) + SIGNATURE_CHARACTERS if file.etag else 0
        is_full = len(open_files) == max_files or open_characters + characters > MAX_PACK_URL_CHARACTERS
        is_too_large = max_bytes is not None and open_bytes + file.size_bytes > max_bytes
        if open_files and (is_full or is_too_large):
            packs.append(Pack.of(open_files))
            open_files, open_bytes, open_characters = [], 0, 0
        open_files.append(file)
        open_bytes += file.size_bytes
        open_characters += characters
    return [*packs, Pack.of(open_files)] if open_files else packs


def _chunks(packs: Sequence[Pack], max_chunks: int | None = None) -> tuple[Chunk, ...]:
    size = -(-len(packs) // max_chunks) or 1 if max_chunks else chunk_size(len(packs))
    total = sum(len(pack.files) for pack in packs)
    chunks: list[Chunk] = []
    first = 1
    for start in range(0, len(packs), size):
        chunk = Chunk(first=first, total=total, packs=tuple(packs[start : start + size]))
        chunks.append(chunk)
        first += len(chunk.files)
    return tuple(chunks)


def chunk_size(pack_count: int) -> int:
    """Return the number of packs per chunk: 1 for up to 20 packs, then more, to limit the number of task runs."""
    if pack_count <= MAX_SINGLE_PACK_CHUNKS:
        return 1
    even_share = -(-pack_count // MAX_SINGLE_PACK_CHUNKS)
    return max(min(even_share, PREFERRED_CHUNK_PACKS), -(-pack_count // MAX_CHUNKS))
