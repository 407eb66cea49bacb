"""The values that the steps hand to each other: frozen, without behaviour beyond what follows from their fields.

Instants are timezone-aware UTC and end in ``_at``; durations are seconds; a pair of names like ``file`` and ``name``
means the absolute path on this machine, and the path below the inputs' common folder that people see. What there is one of
for each file has slots, since there may be a hundred thousand.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum

from tasks.pool_setup import DEFAULT_SETUP, PoolSetup


@dataclass(frozen=True, kw_only=True, slots=True)
class InputFile:
    """One file to work on.

    Attributes:
        path: Absolute path on this machine.
        name: Path below the inputs' common folder, with forward slashes.
        output: Where its outputs go below the output folder, without the suffix (``reports/a_OUTPUT``).
        sha256: Hash of its content.
        size_bytes: Its length.
        content_key: Hash of everything that its result depends on; names the result for ever.
        copies: Paths of the other inputs with this content; any of them can be read instead.
    """

    path: str
    name: str
    output: str
    sha256: str
    size_bytes: int
    content_key: str
    copies: tuple[str, ...] = ()


# They are worked on one after the other, and a node that dies takes the work on all of them with it.
MOST_FILES_PER_TASK = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Pack:
    """What one Batch task works on: one file, or several small ones.

    Attributes:
        task_id: Id of the Batch task: the same in every attempt and every run that has this pack.
        is_archive: Whether the files go to the node as an archive, and their results come back as one.
    """

    task_id: str
    is_archive: bool
    files: tuple[InputFile, ...]

    @classmethod
    def of(cls, files: Sequence[InputFile]) -> Pack:
        """Make the pack of these files."""
        if len(files) == 1:
            return cls(task_id=f"f-{files[0].content_key[:32]}", is_archive=False, files=tuple(files))
        return cls(task_id=f"p-{_key(files)[:32]}", is_archive=True, files=tuple(files))

    def without(self, content_keys: Container[str]) -> Pack | None:
        """Give the same pack without the files of these content keys; None if none is left."""
        files = tuple(file for file in self.files if file.content_key not in content_keys)
        return replace(self, files=files) if files else None


def _key(files: Iterable[InputFile]) -> str:
    return hashlib.sha256("\n".join(file.content_key for file in files).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Packs that are staged, submitted and collected by one Prefect task run each.

    Attributes:
        first: The place of its first file among all that are worked on, counted from 1.
        total: How many these are.
    """

    first: int
    total: int
    packs: tuple[Pack, ...]

    @property
    def files(self) -> tuple[InputFile, ...]:
        """The files of all its packs."""
        return tuple(file for pack in self.packs for file in pack.files)

    @property
    def label(self) -> str:
        """What the chunk holds, for the names of task runs: "3 of 7" or "1-50 of 950"."""
        last = self.first + len(self.files) - 1
        return f"{self.first} of {self.total}" if last == self.first else f"{self.first}-{last} of {self.total}"

    @property
    def key(self) -> str:
        """Hash of the contents in it, and of how they are packed."""
        return _key_of_packs(self.packs)


def _key_of_packs(packs: Iterable[Pack]) -> str:
    return hashlib.sha256("\n".join(f"{pack.task_id} {_key(pack.files)}" for pack in packs).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Run:
    """One attempt of a flow run, between two cleanups: the source of every name that it creates.

    Attributes:
        deadline_at: When it gives up, and everything it made expires.
        prefect_api: The Prefect server that knows how the flow run ended.
        keep: What stays when it ends; no sweep takes it for a leftover.
    """

    flow_run_id: str
    generation: int
    deadline_at: datetime
    prefect_api: str
    keep: Keep

    @property
    def name(self) -> str:
        """Prefix of every name of this run; also the id of its pool and of its job."""
        return f"{run_prefix(self.flow_run_id)}{self.generation}"

    def metadata(self, *, kept: bool) -> dict[str, str]:
        """What a resource of this run carries, so that anybody can tell whose it is and until when."""
        return {
            "owner": OWNER,
            "flow_run_id": self.flow_run_id,
            "expires_at": self.deadline_at.isoformat(timespec="seconds"),
            "prefect_api": self.prefect_api,
            **({"kept": "true"} if kept else {}),
        }

    def owns(self, metadata: Mapping[str, str]) -> bool:
        """Whether a resource with this metadata is of this flow run."""
        return is_owned_by(self.flow_run_id, metadata)


@dataclass(frozen=True, kw_only=True)
class Keep:
    """What a cleanup leaves in place."""

    containers: bool = False
    job: bool = False
    pool: bool = False


KEEP_NOTHING = Keep()

OWNER = "topn"
NAME_PREFIX = "topn-"


def is_owned_by(flow_run_id: str, metadata: Mapping[str, str]) -> bool:
    """Whether a resource with this metadata is of a flow run: a name alone proves nothing."""
    return metadata.get("owner") == OWNER and metadata.get("flow_run_id") == flow_run_id


def run_prefix(flow_run_id: str) -> str:
    """What the names of all generations of a flow run begin with."""
    return f"{NAME_PREFIX}{flow_run_id.replace('-', '')}-"


@dataclass(frozen=True, kw_only=True)
class Containers:
    """Names of the three blob containers of a run."""

    application: str
    inputs: str
    outputs: str


# Source: Azure Batch documentation, "Create Pool": the id, taskSlotsPerNode.
POOL_ID = "[A-Za-z0-9_-]{1,64}"
MOST_SLOTS = 256


@dataclass(frozen=True, kw_only=True)
class PoolOptions:
    """What a user may choose about the pool.

    Attributes:
        pool_id: An existing pool to use, which is never changed and never deleted; None creates one for the run.
        vm_size: VM size of a created pool.
        nodes: The most dedicated nodes a created pool may have.
        spot_nodes: The most spot nodes; the dedicated ones then do what these cannot.
        slots_per_node: Batch tasks that run side by side on a node of a created pool; None is one for each core.
        setup: How its nodes are set up.
    """

    pool_id: str | None = None
    vm_size: str = "standard_d2s_v3"
    nodes: int = 2
    spot_nodes: int = 0
    slots_per_node: int | None = None
    setup: PoolSetup = DEFAULT_SETUP

    @property
    def slots(self) -> int:
        """The slots of a node of a created pool; one where the name of the VM size does not tell its cores."""
        return self.slots_per_node or min(cores_of(self.vm_size) or 1, MOST_SLOTS)


def cores_of(vm_size: str) -> int | None:
    """Read the number of cores (vCPUs) from the name of a VM size; None where it does not tell.

    Source: Azure documentation, "Azure virtual machine sizes naming conventions": family letters, the cores, the cores
    that a constrained size really has. Names before version 3 do not hold to it: Standard_D3_v2 has 4.
    """
    match = re.fullmatch(r"standard_[a-z]+(\d+)(?:-(\d+))?[a-z]*(?:_[a-z0-9]+)*_v([3-9]|\d\d)", vm_size.lower())
    return int(match.group(2) or match.group(1)) if match else None


DEFAULT_POOL = PoolOptions()


@dataclass(frozen=True, kw_only=True)
class BatchJob:
    """The run's job, and where its Batch tasks find what was shipped.

    Attributes:
        files_variable: The ``AZ_BATCH_…`` variable that names the folder with the workload's files on a node.
        setup: How the pool's nodes are set up.
        node_identity: Resource id of the managed identity by which nodes read and write blobs; None is by signed URLs.
    """

    job_id: str
    pool_id: str
    files_variable: str
    setup: PoolSetup = DEFAULT_SETUP
    node_identity: str | None = None


@dataclass(frozen=True, kw_only=True)
class StagedChunk:
    """A chunk whose good files are in the input container, and then in the job.

    Attributes:
        staged: The packs that can be submitted, or are, with the files that are in the container.
        failures: Why the others cannot, by content key.
        signed_until_at: When the signed URLs of its Batch tasks end, once they are submitted.
    """

    chunk: Chunk
    staged: tuple[Pack, ...]
    failures: Mapping[str, FileError]
    signed_until_at: datetime | None = None

    @property
    def label(self) -> str:
        """What the chunk holds, for the names of task runs."""
        return self.chunk.label

    @property
    def key(self) -> str:
        """Hash of the chunk and of what is staged of it; two chunks of which nothing is staged differ in the first."""
        return hashlib.sha256(f"{self.chunk.key} {_key_of_packs(self.staged)}".encode()).hexdigest()


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


@dataclass(frozen=True, kw_only=True)
class FinishedChunk:
    """A chunk on which the service has nothing more to say.

    Attributes:
        outcomes: What it said of each submitted Batch task, by task id.
        reason: Why waiting ended before all were completed, or None.
    """

    submitted: StagedChunk
    outcomes: Mapping[str, BatchTaskOutcome]
    reason: FileError | None = None

    @property
    def key(self) -> str:
        """Hash of the contents in the chunk: the same in every attempt, as its place among the others is not."""
        return self.submitted.chunk.key

    @property
    def label(self) -> str:
        """What the chunk holds, for the names of task runs."""
        return self.submitted.label


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


@dataclass(frozen=True, kw_only=True, slots=True)
class FileReport:
    """One file's end: either a result, of now or of before, or an error."""

    file: InputFile
    result: StoredResult | None = None
    unchanged: bool = False
    error: FileError | None = None

    @property
    def status(self) -> str:
        """done, unchanged or failed."""
        if self.result is None:
            return "failed"
        return "unchanged" if self.unchanged else "done"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run will do.

    Attributes:
        files: Every input, in input order.
        unchanged: Results that are known already, by content key.
        chunks: What there is to do.
    """

    files: tuple[InputFile, ...]
    unchanged: Mapping[str, StoredResult]
    chunks: tuple[Chunk, ...]

    @property
    def batch_task_count(self) -> int:
        """How many Batch tasks the run needs."""
        return sum(len(chunk.packs) for chunk in self.chunks)

    @property
    def new_file_count(self) -> int:
        """How many files, of different contents, there is work on."""
        return sum(len(chunk.files) for chunk in self.chunks)

    def waves(self, size: int) -> Iterator[tuple[Chunk, ...]]:
        """Give the chunks a few at a time: what is staged of some is submitted before the last is staged."""
        for first in range(0, len(self.chunks), size):
            yield self.chunks[first : first + size]
