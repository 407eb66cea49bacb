"""Plan: find the inputs, hash them, and say which have no result yet."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from prefect import task

from tasks.errors import UsageError
from tasks.inputs import find_inputs
from tasks.models import Chunk, InputFile, Plan, StoredResult
from tasks.names import names_below_common_folder, output_names, shown
from tasks.progress import advance
from tasks.results_store import ResultsStore, results_store
from tasks.step import STEP
from tasks.workload import Workload

# Up to this many files, each is a chunk of its own, so that the Prefect UI shows each.
MOST_SINGLE_FILE_CHUNKS = 20

# A chunk is three task runs, and a run stays under 300: its server needs some 50 ms for each.
MOST_CHUNKS = 90

# As many Batch tasks as one request adds.
USUAL_CHUNK_FILES = 100

READ_BYTES = 1024 * 1024


@task(**STEP, task_run_name="plan")
def plan_files(inputs: Sequence[str], workload: Workload, refresh: bool) -> Plan:
    """Say which files there is work on, and what is known of the others.

    Raises:
        UsageError: An input cannot be used.
    """
    plan = make_plan(inputs, workload, results_store(), refresh=refresh)
    for step in ("staged", "submitted", "completed"):
        advance(step, total=plan.batch_task_count)
    return plan


def make_plan(inputs: Sequence[str], workload: Workload, store: ResultsStore, *, refresh: bool) -> Plan:
    """Hash the inputs and look each content up in the store.

    Raises:
        UsageError: An input cannot be used.
    """
    paths = find_inputs(inputs)
    names = names_below_common_folder(paths)
    files = tuple(
        _input_file(path, name, output, workload)
        for path, name, output in zip(paths, names, output_names(names), strict=True)
    )
    by_content = {file.content_key: file for file in files}
    known: dict[str, StoredResult] = {}
    if not refresh:
        found = ((file, store.get(key)) for key, file in by_content.items())
        known = {
            file.content_key: result
            for file, result in found
            if result is not None and workload.refusal(file, result.outputs) is None
        }
    new = [file for key, file in by_content.items() if key not in known]
    return Plan(files=files, unchanged=known, chunks=_chunks(new))


def _input_file(path: str, name: str, output: str, workload: Workload) -> InputFile:
    digest = hashlib.sha256()
    size_bytes = 0
    try:
        with Path(path).open("rb") as file:
            while block := file.read(READ_BYTES):
                digest.update(block)
                size_bytes += len(block)
    except OSError as error:
        raise UsageError(f"{shown(name)} cannot be read ({error.strerror}).") from error
    content_key = hashlib.sha256(json.dumps([digest.hexdigest(), workload.sha256]).encode()).hexdigest()
    return InputFile(
        path=path,
        name=name,
        output=output,
        sha256=digest.hexdigest(),
        size_bytes=size_bytes,
        content_key=content_key,
    )


def _chunks(files: Sequence[InputFile]) -> tuple[Chunk, ...]:
    size = chunk_size(len(files))
    return tuple(
        Chunk(first=start + 1, total=len(files), files=tuple(files[start : start + size]))
        for start in range(0, len(files), size)
    )


def chunk_size(file_count: int) -> int:
    """How many files make a chunk: one while there are few, then more, so that a run's task runs stay bounded."""
    if file_count <= MOST_SINGLE_FILE_CHUNKS:
        return 1
    shared_out = -(-file_count // MOST_SINGLE_FILE_CHUNKS)
    return max(min(shared_out, USUAL_CHUNK_FILES), -(-file_count // MOST_CHUNKS))
