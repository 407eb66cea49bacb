"""How the work on a file ended: a result or an error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from tasks.model.files import InputFile


class Category(str, Enum):
    """Why a file has no result."""

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
    """Why a file has no result, for people and programs.

    Attributes:
        attempts: How often its program was started; 0 if never.
        node_id: Where it was started last.
        stdout: The last lines of what it said, as the node agent brought them.
        stderr: The same of its complaints.
        repeat_command: What repeats it on this machine, for a shell.
    """

    category: Category
    message: str
    exit_code: int | None = None
    attempts: int = 0
    node_id: str | None = None
    stdout: str = ""
    stderr: str = ""
    repeat_command: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchTaskOutcome:
    """What the service says of one Batch task.

    Attributes:
        state: active, preparing, running or completed.
        result: success or failure, once completed.
        failure_code: The service's code, such as FailureExitCode or BlobNotFound.
        started_at: When its last attempt started, by the service's clock.
        ended_at: When that ended.
    """

    task_id: str
    state: str
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
    """Where a result comes from."""

    node_id: str
    task_id: str
    job_id: str
    pool_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredResult:
    """A result that is good for ever, and the run that it is from.

    Attributes:
        outputs: The content of each output of the workload, by name.
    """

    outputs: Mapping[str, bytes]
    provenance: Provenance


# How the work on a file ended.
Verdict = StoredResult | FileError


@dataclass(frozen=True, kw_only=True, slots=True)
class FileReport:
    """A file and its verdict.

    Attributes:
        unchanged: Whether the result is of an earlier run.
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
        """One of done, unchanged and failed."""
        if isinstance(self.verdict, FileError):
            return "failed"
        return "unchanged" if self.unchanged else "done"
