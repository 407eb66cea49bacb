"""Plan: find the inputs, hash them, and say which have no result yet."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tasks.errors import UsageError
from tasks.model.chunks import Chunk, Pack
from tasks.model.files import InputFile
from tasks.model.inputs import find_inputs
from tasks.model.output_names import names_below_common_folder, output_names
from tasks.model.plan import Plan
from tasks.model.verdict import StoredResult
from tasks.progress import advance
from tasks.steps.step import step
from tasks.text import printable
from tasks.workload.base import Workload
from tasks.workload.results_store import ResultsStore, results_store

# More files than these share Batch tasks, a hundred at most: 100,000 small files are 1,000 Batch tasks.
MAX_SINGLE_FILE_TASKS = 1000
MAX_PACK_FILES = 100
MAX_PACK_BYTES = 16 * 1024 * 1024

# Up to this many packs, each is a chunk of its own, so that the Prefect UI shows each.
MAX_SINGLE_PACK_CHUNKS = 20

# A chunk is three task runs, and a run stays under 300: its server needs some 50 ms for each.
MAX_CHUNKS = 90

# As many Batch tasks as one request adds.
USUAL_CHUNK_PACKS = 100

READ_BYTES = 1024 * 1024


@step("plan")
def plan_files(inputs: Sequence[str], workload: Workload, refresh: bool, files_per_task: int | None) -> Plan:
    """Say which files there is work on, and what is known of the others.

    Raises:
        UsageError: An input cannot be used.
    """
    plan = make_plan(inputs, workload, results_store(), refresh=refresh, files_per_task=files_per_task)
    for stage in ("staged", "submitted", "completed"):
        advance(stage, total=plan.new_file_count)
    return plan


def make_plan(
    inputs: Sequence[str],
    workload: Workload,
    store: ResultsStore,
    *,
    refresh: bool = False,
    files_per_task: int | None = None,
) -> Plan:
    """Hash the inputs, look each content up in the store, and pack what is new.

    Args:
        inputs: Names of files, or patterns.
        workload: What is to be done.
        store: What is known.
        refresh: Do it for files whose result is known, too.
        files_per_task: How many files share a Batch task; None chooses.

    Raises:
        UsageError: An input cannot be used.
    """
    paths = find_inputs(inputs)
    names = names_below_common_folder(paths)
    files = tuple(
        _input_file(path, name, output, workload)
        for path, name, output in zip(paths, names, output_names(names), strict=True)
    )
    by_content = _without_copies(files)
    known: dict[str, StoredResult] = {}
    if not refresh:
        found = ((file, store.get(key)) for key, file in by_content.items())
        known = {
            file.content_key: result
            for file, result in found
            if result is not None and workload.refusal(file, result.outputs) is None
        }
    new = [file for key, file in by_content.items() if key not in known]
    return Plan(files=files, unchanged=known, chunks=_chunks(packs_of(new, files_per_task)))


def _without_copies(files: Sequence[InputFile]) -> dict[str, InputFile]:
    """Return the first file of each content, by content key; it knows where the others are."""
    by_content: dict[str, list[InputFile]] = {}
    for file in files:
        by_content.setdefault(file.content_key, []).append(file)
    return {
        key: replace(first, copies=tuple(file.path for file in others)) if others else first
        for key, (first, *others) in by_content.items()
    }


def _input_file(path: str, name: str, output: str, workload: Workload) -> InputFile:
    digest = hashlib.sha256()
    size_bytes = 0
    try:
        with Path(path).open("rb") as file:
            while block := file.read(READ_BYTES):
                digest.update(block)
                size_bytes += len(block)
    except OSError as error:
        raise UsageError(f"{printable(name)} cannot be read ({error.strerror}).") from error
    content_key = hashlib.sha256(json.dumps([digest.hexdigest(), workload.sha256]).encode()).hexdigest()
    return InputFile(
        path=path,
        name=name,
        output=output,
        sha256=digest.hexdigest(),
        size_bytes=size_bytes,
        content_key=content_key,
    )


def pack_size(file_count: int) -> int:
    """How many files share a Batch task, unless the user says: one, while there are few."""
    return min(MAX_PACK_FILES, -(-file_count // MAX_SINGLE_FILE_TASKS)) or 1


def packs_of(files: Sequence[InputFile], files_per_task: int | None) -> list[Pack]:
    """Pack files in their order: as many as may be and, where the user does not say how many, few bytes."""
    most_files = files_per_task or pack_size(len(files))
    most_bytes = None if files_per_task else MAX_PACK_BYTES
    packs: list[Pack] = []
    open_files: list[InputFile] = []
    open_bytes = 0
    for file in files:
        is_full = len(open_files) == most_files
        is_heavy = most_bytes is not None and open_bytes + file.size_bytes > most_bytes
        if open_files and (is_full or is_heavy):
            packs.append(Pack.of(open_files))
            open_files, open_bytes = [], 0
        open_files.append(file)
        open_bytes += file.size_bytes
    return [*packs, Pack.of(open_files)] if open_files else packs


def _chunks(packs: Sequence[Pack]) -> tuple[Chunk, ...]:
    size = chunk_size(len(packs))
    total = sum(len(pack.files) for pack in packs)
    chunks: list[Chunk] = []
    first = 1
    for start in range(0, len(packs), size):
        chunk = Chunk(first=first, total=total, packs=tuple(packs[start : start + size]))
        chunks.append(chunk)
        first += len(chunk.files)
    return tuple(chunks)


def chunk_size(pack_count: int) -> int:
    """How many packs make a chunk: one while there are few, then more, so that a run's task runs stay bounded."""
    if pack_count <= MAX_SINGLE_PACK_CHUNKS:
        return 1
    shared_out = -(-pack_count // MAX_SINGLE_PACK_CHUNKS)
    return max(min(shared_out, USUAL_CHUNK_PACKS), -(-pack_count // MAX_CHUNKS))
