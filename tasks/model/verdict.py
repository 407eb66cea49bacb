"""Verdicts: the result or the error of each file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum

from pydantic.dataclasses import dataclass as checked_dataclass

from tasks.model.checked import STRICT, Text
from tasks.model.files import InputFile
from tasks.model.outputs import Outputs, Partial


class Category(str, Enum):
    """Cause of a file error."""

    PROGRAM = "program"
    INPUT = "input"
    RESOURCE_FILE = "resource_file"
    UPLOAD = "upload"
    NODE = "node"
    WALL_CLOCK = "wall_clock"
    PREEMPTED = "preempted"
    CANCELLED = "cancelled"


@dataclass(frozen=True, kw_only=True, slots=True)
class FileError:
    """The reason why a file has no result, for people and programs.

    Attributes:
        attempts: Number of times that its program was started.
        node_id: Node of the last attempt.
        stdout: Last lines of the program's standard output, as the node agent uploaded them.
        stderr: Last lines of its standard error.
        repeat_command: Shell command that processes the file on this machine.
        code: Error code of Batch, if its Batch task failed.
    """

    category: Category
    message: str
    exit_code: int | None = None
    attempts: int = 0
    node_id: str | None = None
    stdout: str = ""
    stderr: str = ""
    repeat_command: str = ""
    code: str = ""


NOT_SUBMITTED = FileError(category=Category.CANCELLED, message="The run ended before it was submitted")


@checked_dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class BatchTaskOutcome:
    """State of one Batch task, as the service reports it.

    Attributes:
        state: "active", "preparing", "running" or "completed".
        result: "success" or "failure"; None until the Batch task is completed.
        started_at: When its last attempt started, by the service's clock.
        ended_at: When its last attempt ended.
        failure_code: Error code of the service, for example FailureExitCode or BlobNotFound.
    """

    task_id: Text
    state: Text
    result: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    exit_code: int | None = None
    failure_code: str | None = None
    failure_message: str | None = None
    node_id: str | None = None
    retry_count: int = 0
    requeue_count: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """The Batch task that created a result, with its node, job and pool."""

    node_id: str
    task_id: str
    job_id: str
    pool_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredResult:
    """A result, which later runs reuse, and where it was created.

    Attributes:
        outputs: The outputs of the workload, by name. They are not in memory.
        sha256: SHA-256 hash of the input, in hexadecimal; "" if unknown.
        partial: Its partial of the corpus; None if it has none.
    """

    outputs: Outputs
    provenance: Provenance
    sha256: str = ""
    partial: Partial | None = None


Verdict = StoredResult | FileError


def counted(file: InputFile, result: StoredResult) -> InputFile:
    """Return a file with the hash of the content that its result is of."""
    return replace(file, sha256=result.sha256) if file.etag else file


@dataclass(frozen=True, kw_only=True, slots=True)
class FileReport:
    """A file and its verdict.

    Attributes:
        unchanged: Whether the result is from an earlier run.
    """

    file: InputFile
    verdict: Verdict
    unchanged: bool = False

    @property
    def result(self) -> StoredResult | None:
        """The result; None if the file failed."""
        return self.verdict if isinstance(self.verdict, StoredResult) else None

    @property
    def error(self) -> FileError | None:
        """The error; None if the file has a result."""
        return self.verdict if isinstance(self.verdict, FileError) else None

    @property
    def status(self) -> str:
        """One of "done", "unchanged" and "failed"."""
        if isinstance(self.verdict, FileError):
            return "failed"
        return "unchanged" if self.unchanged else "done"
