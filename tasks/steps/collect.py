"""Collect the outputs of completed Batch tasks, and store each result as soon as it is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial

from prefect.runtime import flow_run

from tasks.azure.accounts import blob_account
from tasks.azure.blob import BlobAccount
from tasks.azure.blob_outputs import open_blob
from tasks.errors import NotFoundError, ServiceError
from tasks.model.chunks import FinishedChunk, Pack
from tasks.model.files import InputFile, Source
from tasks.model.inputs import blob_error, changed_error, deleted_error
from tasks.model.naming import PARTIALS_CONTAINER, output_blob, partial_blob
from tasks.model.outputs import Output, Outputs, Scratch
from tasks.model.run import BatchJob, Containers
from tasks.model.verdict import BatchTaskOutcome, Category, FileError, Provenance, StoredResult, Verdict
from tasks.redaction import describe_error
from tasks.steps.step import PartialFailures, call_hook, log_unexpected, step, warn
from tasks.text import printable
from tasks.workload.base import INPUT_ERROR, LOGS, Workload
from tasks.workload.packs import INPUT_HASH, RESULTS, file_outcomes, partial_of, partials_output
from tasks.workload.result_documents import MAX_INLINE_BYTES
from tasks.workload.results_store import ResultsStore, results_store
from tasks.workload.source_results import SourceResult

SHA256_DIGITS = 64
MAX_LOG_BYTES = 4096
MAX_LOG_LINES = 20

# The service does not document with which code a Batch task fails that reaches its time limit.
TIME_LIMIT_CODE = "MaxWallClockTimeExpiry"

# Source: https://learn.microsoft.com/en-us/azure/batch/batch-job-task-error-checking
CATEGORY_OF_CODE = {
    "FailureExitCode": Category.PROGRAM,
    "CommandProgramNotFound": Category.NODE,
    "CommandLaunchFailed": Category.NODE,
    "TaskEnded": Category.CANCELLED,
    TIME_LIMIT_CODE: Category.WALL_CLOCK,
}
CATEGORY_OF_PREFIX = {
    "FileUpload": Category.UPLOAD,
    "Blob": Category.RESOURCE_FILE,
    "Resource": Category.RESOURCE_FILE,
}

PARTIAL_IS_MISSING = FileError(
    category=Category.UPLOAD,
    message="Its Batch task succeeded, but its partial of the corpus is missing from the container",
    exit_code=0,
)

# By content key.
Verdicts = Mapping[str, Verdict]

# Returns an output or a log by its name, or the last bytes of a log; None if it does not exist.
ReadOutput = Callable[[str], Output | None]
ReadTail = Callable[[str], bytes | None]


@step("collect {finished.label}")
def collect_results(
    finished: FinishedChunk, job: BatchJob, workload: Workload, containers: Containers, keep_remote: bool
) -> Verdicts:
    """Return the verdict on each file of a chunk, by content key.

    With `keep_remote`, large outputs stay in Storage, unless the results store or the workload needs their contents.
    """
    store = results_store(str(flow_run.id), warn)
    keep_remote = keep_remote and workload.keeps_outputs_remote and not store.is_local
    return collect_chunk(blob_account(), store, finished, job, workload, containers, keep_remote=keep_remote)


def collect_chunk(
    account: BlobAccount,
    store: ResultsStore,
    finished: FinishedChunk,
    job: BatchJob,
    workload: Workload,
    containers: Containers,
    *,
    only_in_archive: bool = False,
    keep_remote: bool = False,
) -> Verdicts:
    """Return the verdict on each file of a chunk, by content key, and store each result as soon as it is read.

    With `only_in_archive`, leave out the files of a pack that its results archive does not have. With `keep_remote`,
    download no large outputs, except those in archives.

    Raises:
        ServiceError: A download failed for a transient reason, and the step will be retried.
    """
    verdicts: dict[str, Verdict] = dict(finished.submitted.failures)
    failures = PartialFailures("collected", Category.UPLOAD)
    scratch = Scratch()
    for pack in finished.submitted.staged:
        outcome = _with_time_limit(finished.outcomes.get(pack.task_id), job.task_minutes)
        read = partial(open_blob, max_bytes=MAX_INLINE_BYTES) if keep_remote and not pack.is_archive else _download
        read_output = partial(_read_output, partial(read, account, containers.outputs), pack, scratch)
        read_tail = partial(_download_tail, account, containers, pack)
        keep_partials = partial(_keep_partials, account, containers, pack, outcome, workload)
        partials = failures.attempt(pack.files, keep_partials)
        unpacked = failures.attempt(pack.files, partial(_unpack, read_output, pack, outcome))
        if partials is None or unpacked is None:
            continue
        for file in pack.files:
            if only_in_archive and pack.is_archive and file.content_key not in unpacked:
                continue
            judge = partial(_verdict, read_output, read_tail, file, outcome, finished.reason, job, workload)
            if file.content_key in unpacked:
                own_outcome, outputs = unpacked[file.content_key]
                judge = partial(
                    _verdict, outputs.get, partial(_tail, outputs), file, own_outcome, finished.reason, job, workload
                )
            if (verdict := failures.attempt([file], judge)) is not None:
                verdict = _with_partial(verdict, pack, file, partials, workload)
                verdicts[file.content_key] = _stored(store, file, verdict, workload)
    blobs = [file for pack in finished.submitted.staged for file in pack.files if file.etag]
    counted_blobs = [
        (file, verdict) for file in blobs if isinstance(verdict := verdicts.get(file.content_key), StoredResult)
    ]
    _check_etags(account, [file for file, _ in counted_blobs], failures)
    verdicts |= _store_blobs(
        store, [each for each in counted_blobs if each[0].content_key not in failures.errors], workload
    )
    return {**verdicts, **failures.errors}


def _stored(store: ResultsStore, file: InputFile, verdict: Verdict, workload: Workload) -> Verdict:
    """Store the result of a file of this machine, or of the last merge. Another merge is known by its partial."""
    if isinstance(verdict, FileError) or file.etag or not workload.outputs:
        return verdict
    return store.put(file.content_key, verdict)


def _with_partial(verdict: Verdict, pack: Pack, file: InputFile, partials: str, workload: Workload) -> Verdict:
    if workload.merge is None or not isinstance(verdict, StoredResult):
        return verdict
    return replace(verdict, partial=partial_of(pack, file, partials)) if partials else PARTIAL_IS_MISSING


def _keep_partials(
    account: BlobAccount, containers: Containers, pack: Pack, outcome: BatchTaskOutcome | None, workload: Workload
) -> str:
    """Copy the partials of a Batch task inside Storage to the container of the partials.

    Returns:
        The name of the copy; "" if the Batch task has left no partials, or the workload has none.
    """
    is_done = outcome is not None and (pack.is_archive or (outcome.result == "success" and outcome.exit_code == 0))
    if workload.merge is None or not is_done:
        return ""
    source = output_blob(pack.task_id, partials_output(pack, workload.merge))
    try:
        found = account.read_start(containers.outputs, source, 1)
    except NotFoundError:
        return ""
    copy = partial_blob(containers.outputs, pack.task_id)
    url = account.copy_url(containers.outputs, source)
    account.copy(PARTIALS_CONTAINER, copy, url, found.size_bytes, found.etag, found.md5, "")
    return copy


def _check_etags(account: BlobAccount, files: Iterable[InputFile], failures: PartialFailures) -> None:
    """Record an error for each blob that was changed or deleted since it was listed: a node may have read either content."""
    containers: dict[tuple[str, str], dict[str, InputFile]] = {}
    for file in files:
        place = file.place
        containers.setdefault((place.account, place.container), {})[place.path] = file
    for (endpoint, container), by_name in containers.items():
        etags = failures.attempt(by_name.values(), partial(_etags, account, endpoint, container, by_name))
        if etags is None:
            continue
        for name, file in by_name.items():
            if name not in etags:
                failures.errors[file.content_key] = deleted_error(file)
            elif etags[name] != file.etag:
                failures.errors[file.content_key] = changed_error(file)


def _etags(account: BlobAccount, endpoint: str, container: str, names: Collection[str]) -> dict[str, str]:
    return account.at(endpoint).etags(container, names)


def _store_blobs(
    store: ResultsStore, results: Iterable[tuple[InputFile, StoredResult]], workload: Workload
) -> dict[str, StoredResult]:
    by_source: dict[Source, dict[str, SourceResult]] = {}
    for file, result in results:
        if file.source is not None:
            key = workload.result_key(result.sha256, file.name)
            stored = SourceResult(blob=file.place.path, result=result, local_key=key)
            by_source.setdefault(file.source, {})[file.content_key] = stored
    written: dict[str, StoredResult] = {}
    for source, stored_results in by_source.items():
        written |= store.add(source, stored_results)
    return written


def _with_time_limit(outcome: BatchTaskOutcome | None, task_minutes: float | None) -> BatchTaskOutcome | None:
    """Return an outcome whose cause is the time limit if the Batch task failed and had run for that long."""
    if outcome is None or outcome.result == "success" or task_minutes is None:
        return outcome
    started_at, ended_at = outcome.started_at, outcome.ended_at
    if started_at is None or ended_at is None or ended_at - started_at < timedelta(minutes=task_minutes):
        return outcome
    message = f"Its Batch task ran longer than {task_minutes:g} minutes, its limit `task_minutes`"
    return replace(outcome, failure_code=TIME_LIMIT_CODE, failure_message=message)


def _unpack(
    read_output: ReadOutput, pack: Pack, outcome: BatchTaskOutcome | None
) -> dict[str, tuple[BatchTaskOutcome, dict[str, Output]]]:
    """Return what the results archive of a pack has, by content key; nothing for a single file."""
    archive = read_output(RESULTS) if pack.is_archive and outcome is not None else None
    return {} if archive is None or outcome is None else file_outcomes(archive, pack, outcome)


def _read_output(read: Callable[[str, Scratch], Output], pack: Pack, scratch: Scratch, name: str) -> Output | None:
    """Return an output of a Batch task; None if it does not exist."""
    try:
        return read(output_blob(pack.task_id, name), scratch)
    except NotFoundError:
        return None


def _download(account: BlobAccount, container: str, blob: str, scratch: Scratch) -> Output:
    return scratch.add(account.download(container, blob))


def _download_tail(account: BlobAccount, containers: Containers, pack: Pack, name: str) -> bytes | None:
    """Download the end of a log of a Batch task; None if it does not exist."""
    try:
        return account.download_tail(containers.outputs, output_blob(pack.task_id, name), MAX_LOG_BYTES)
    except NotFoundError:
        return None


def _tail(outputs: Mapping[str, Output], name: str) -> bytes | None:
    return outputs[name].tail(MAX_LOG_BYTES) if name in outputs else None


def _verdict(
    read_output: ReadOutput,
    read_tail: ReadTail,
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
        stdout, stderr = (_last_lines(read_tail, log) for log in LOGS)
        return failure_of(file, outcome, stdout, stderr, reason, workload)
    found = {name: read_output(name) for name in (*workload.outputs, *([INPUT_HASH] if file.etag else []))}
    outputs = {name: output for name, output in found.items() if output is not None}
    if missing := ", ".join(name for name in found if name not in outputs):
        message = f"Its Batch task succeeded, but did not leave {missing} in the container"
        return FileError(category=Category.UPLOAD, message=message, exit_code=0)
    if file.etag:
        file = replace(file, sha256=outputs.pop(INPUT_HASH).read(SHA256_DIGITS).decode("ascii", "replace"))
        if not re.fullmatch(f"[0-9a-f]{{{SHA256_DIGITS}}}", file.sha256):
            return FileError(category=Category.PROGRAM, message="The hash of its content cannot be read", exit_code=0)
    if (error := _output_error(workload, file, Outputs(outputs))) is not None:
        return error
    provenance = Provenance(
        node_id=outcome.node_id or "-", task_id=outcome.task_id, job_id=job.job_id, pool_id=job.pool_id
    )
    return StoredResult(outputs=Outputs(outputs), provenance=provenance, sha256=file.sha256)


def _output_error(workload: Workload, file: InputFile, outputs: Outputs) -> FileError | None:
    try:
        return workload.output_error(file, outputs)
    except Exception as error:  # noqa: BLE001 - an error of a workload fails its files, and says so
        message = f"The workload {workload.name} could not check its outputs: {describe_error(error)}"
        log_unexpected(error, f"{message}.")
        return FileError(category=Category.PROGRAM, message=message, exit_code=0)


def failure_of(
    file: InputFile,
    outcome: BatchTaskOutcome,
    stdout: str,
    stderr: str,
    reason: FileError | None,
    workload: Workload,
) -> FileError:
    """Return the error of a completed Batch task, with its logs and a command that repeats the work."""
    category, message = _cause(file, outcome, stderr, reason, workload)
    # The service does not know of the second attempt of the command for a single file.
    retries = max(outcome.retry_count, int(category is Category.PROGRAM))
    return FileError(
        category=category,
        message=message,
        exit_code=outcome.exit_code,
        attempts=retries + outcome.requeue_count + 1 if outcome.node_id else 0,
        node_id=outcome.node_id,
        stdout=stdout,
        stderr=stderr,
        repeat_command=call_hook(workload, workload.repeat_command, "", file),
        code=outcome.failure_code or "",
    )


def _cause(
    file: InputFile, outcome: BatchTaskOutcome, stderr: str, reason: FileError | None, workload: Workload
) -> tuple[Category, str]:
    code = outcome.failure_code or "FailureExitCode"
    category = CATEGORY_OF_CODE.get(code) or next(
        (category for prefix, category in CATEGORY_OF_PREFIX.items() if code.startswith(prefix)), Category.NODE
    )
    if category is Category.CANCELLED and reason is not None:
        return reason.category, reason.message
    if category is not Category.PROGRAM:
        sentence = (outcome.failure_message or "Its Batch task failed").splitlines()[0].rstrip(".")
        if reason_of_blob := blob_error(file, code):
            return category, f"{reason_of_blob} [{code}]"
        return category, f"{sentence} [{code}]"
    refusal = next((line for line in stderr.splitlines() if line.startswith(INPUT_ERROR)), None)
    if refusal is None:
        return category, f"The program ended with exit code {outcome.exit_code}"
    node_input = workload.node_input(file.name)
    return Category.INPUT, refusal.removeprefix(INPUT_ERROR).replace(node_input, printable(file.name), 1)


def _last_lines(read_tail: ReadTail, log: str) -> str:
    """Read the last lines of a log; empty if it cannot be read, because a missing log does not change the verdict."""
    try:
        content = read_tail(log) or b""
    except ServiceError:
        return ""
    return "\n".join(content.decode("utf-8", "replace").strip().splitlines()[-MAX_LOG_LINES:])
