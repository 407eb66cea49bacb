"""Collect the outputs of completed Batch tasks, and store each result as soon as it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from tasks.azure.accounts import blob_account
from tasks.azure.blob import BlobAccount
from tasks.errors import NotFoundError, ServiceError
from tasks.model.chunks import FinishedChunk, Pack
from tasks.model.files import InputFile
from tasks.model.naming import output_blob
from tasks.model.run import BatchJob, Containers
from tasks.model.verdict import BatchTaskOutcome, Category, FileError, Provenance, StoredResult, Verdict
from tasks.steps.step import step
from tasks.text import printable
from tasks.workload.base import INPUT_ERROR, LOGS, NODE_INPUT, Workload
from tasks.workload.packs import RESULTS, file_outcomes
from tasks.workload.results_store import ResultsStore, results_store

MAX_LOG_BYTES = 4096
MAX_LOG_LINES = 20

# Source: https://learn.microsoft.com/en-us/azure/batch/batch-job-task-error-checking
CATEGORY_OF_CODE = {
    "FailureExitCode": Category.PROGRAM,
    "CommandProgramNotFound": Category.NODE,
    "CommandLaunchFailed": Category.NODE,
    "TaskEnded": Category.CANCELLED,
}
CATEGORY_OF_PREFIX = {
    "FileUpload": Category.UPLOAD,
    "Blob": Category.RESOURCE_FILE,
    "Resource": Category.RESOURCE_FILE,
}

# By content key.
Verdicts = Mapping[str, Verdict]

# Reads an output or a log by its name; `last_bytes` limits it to the end.
Read = Callable[..., bytes | None]


@step("collect {finished.label}")
def collect_results(finished: FinishedChunk, job: BatchJob, workload: Workload, containers: Containers) -> Verdicts:
    """Return the verdict on each file of a chunk, by content key."""
    return collect_chunk(blob_account(), results_store(), finished, job, workload, containers)


def collect_chunk(
    account: BlobAccount,
    store: ResultsStore,
    finished: FinishedChunk,
    job: BatchJob,
    workload: Workload,
    containers: Containers,
) -> Verdicts:
    """Return the verdict on each file of a chunk, by content key, and store each result as soon as it is read."""
    verdicts: dict[str, Verdict] = dict(finished.submitted.failures)
    for pack in finished.submitted.staged:
        outcome = finished.outcomes.get(pack.task_id)
        read_blob = partial(_read_blob, account, containers, pack)
        unpacked = {}
        if pack.is_archive and outcome is not None and (archive := read_blob(RESULTS)) is not None:
            unpacked = file_outcomes(archive, pack, outcome)
        for file in pack.files:
            file_outcome, file_outputs = unpacked.get(file.content_key, (outcome, None))
            read = read_blob if file_outputs is None else partial(_read_unpacked, file_outputs)
            verdict = _verdict(read, file, file_outcome, finished.reason, job, workload)
            if isinstance(verdict, StoredResult):
                store.put(file.content_key, verdict)
            verdicts[file.content_key] = verdict
    return verdicts


def _read_blob(
    account: BlobAccount, containers: Containers, pack: Pack, name: str, *, last_bytes: int | None = None
) -> bytes | None:
    """Read an output or a log of a Batch task; None if it does not exist."""
    try:
        return account.download(containers.outputs, output_blob(pack.task_id, name), last_bytes=last_bytes)
    except NotFoundError:
        return None


def _read_unpacked(outputs: Mapping[str, bytes], name: str, *, last_bytes: int | None = None) -> bytes | None:
    del last_bytes  # The logs of a file in a pack are already short.
    return outputs.get(name)


def _verdict(
    read: Read,
    file: InputFile,
    outcome: BatchTaskOutcome | None,
    reason: FileError | None,
    job: BatchJob,
    workload: Workload,
) -> Verdict:
    """Return the result of a file if its Batch task succeeded and all outputs exist, otherwise the error."""
    if outcome is None:
        return reason or FileError(category=Category.CANCELLED, message="Its Batch task did not complete")
    if outcome.result != "success" or outcome.exit_code != 0:
        stdout, stderr = (_last_lines(read, log) for log in LOGS)
        return failure_of(file, outcome, stdout, stderr, reason, workload)
    found = {name: read(name) for name in workload.outputs}
    outputs = {name: content for name, content in found.items() if content is not None}
    if len(outputs) < len(found):
        return FileError(
            category=Category.UPLOAD,
            message="Its Batch task succeeded, but an output is missing from the container",
            exit_code=0,
        )
    if (refusal := workload.refusal(file, outputs)) is not None:
        return refusal
    provenance = Provenance(
        node_id=outcome.node_id or "-", task_id=outcome.task_id, job_id=job.job_id, pool_id=job.pool_id
    )
    return StoredResult(outputs=outputs, provenance=provenance)


def failure_of(
    file: InputFile,
    outcome: BatchTaskOutcome,
    stdout: str,
    stderr: str,
    reason: FileError | None,
    workload: Workload,
) -> FileError:
    """Return the error of a completed Batch task, with its logs and a command that repeats the work."""
    category, message = _cause(file, outcome, stderr, reason)
    return FileError(
        category=category,
        message=message,
        exit_code=outcome.exit_code,
        attempts=outcome.retry_count + outcome.requeue_count + 1 if outcome.node_id else 0,
        node_id=outcome.node_id,
        stdout=stdout,
        stderr=stderr,
        repeat_command=workload.repeat_command(file),
    )


def _cause(file: InputFile, outcome: BatchTaskOutcome, stderr: str, reason: FileError | None) -> tuple[Category, str]:
    code = outcome.failure_code or "FailureExitCode"
    category = CATEGORY_OF_CODE.get(code) or next(
        (category for prefix, category in CATEGORY_OF_PREFIX.items() if code.startswith(prefix)), Category.NODE
    )
    if category is Category.CANCELLED and reason is not None:
        return reason.category, reason.message
    if category is not Category.PROGRAM:
        sentence = (outcome.failure_message or "Its Batch task failed").splitlines()[0].rstrip(".")
        return category, f"{sentence} [{code}]"
    refusal = next((line for line in stderr.splitlines() if line.startswith(INPUT_ERROR)), None)
    if refusal is None:
        return category, f"The program ended with exit code {outcome.exit_code}"
    # On the node, every input file is called NODE_INPUT.
    return Category.INPUT, refusal.removeprefix(INPUT_ERROR).replace(NODE_INPUT, printable(file.name), 1)


def _last_lines(read: Read, log: str) -> str:
    """Read the last lines of a log; empty if it cannot be read, because a missing log does not change the verdict."""
    try:
        content = read(log, last_bytes=MAX_LOG_BYTES) or b""
    except ServiceError:
        return ""
    return "\n".join(content.decode("utf-8", "replace").strip().splitlines()[-MAX_LOG_LINES:])
