"""Parameters and return values of the Batch client.

Return values are checked when they are created: a value of another type raises a `ValueError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from pydantic.dataclasses import dataclass as checked_dataclass

from tasks.model.checked import STRICT, Text
from tasks.model.pool import PoolOptions
from tasks.model.vm_size import ARM64, X64


@dataclass(frozen=True, kw_only=True)
class Blob:
    """A blob that a node downloads.

    Attributes:
        url: The URL of the blob, with a signature unless `identity` is set.
        file_path: The name of the file in the working directory.
        identity: Resource id of the managed identity that may read the blob.
    """

    url: str
    file_path: str
    identity: str | None = None


@checked_dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class ListedBlob:
    """A blob, as a listing of its container describes it.

    Attributes:
        problem: Why nodes cannot read it; "" if nothing is known.
        md5: MD5 hash of the content, in hexadecimal; "" if the service does not know it.
        copied: The version of the blob of which it is a copy; "" if it is not known to be one.
        modified: When it was last written, as HTTP writes times.
    """

    name: str
    size_bytes: int
    etag: Text
    problem: str = ""
    md5: str = ""
    copied: str = ""
    modified: str = ""


@dataclass(frozen=True, kw_only=True)
class BlobStart:
    """The first bytes of a blob, with the size, the ETag and the MD5 hash of all of it, or ""."""

    content: bytes
    size_bytes: int
    etag: str
    md5: str


@dataclass(frozen=True, kw_only=True)
class Upload:
    """Files that the node agent uploads to a container after a Batch task.

    Attributes:
        pattern: The pattern that the names of the files match.
        container_url: The URL of the container, with a signature unless `identity` is set.
        path: The name or the prefix of the blobs in the container.
        only_on_success: Whether the files are uploaded only if the Batch task succeeds.
        identity: Resource id of the managed identity that may write to the container.
    """

    pattern: str
    container_url: str
    path: str
    only_on_success: bool
    identity: str | None = None


@dataclass(kw_only=True)
class AddedTasks:
    """The response of Batch to a request that adds Batch tasks.

    Attributes:
        rejected: The reason for each Batch task that is not in the job, by task id.
        existing: Ids of the Batch tasks that were in the job before, and did not change.
    """

    rejected: dict[str, str] = field(default_factory=dict)
    existing: set[str] = field(default_factory=set)


@dataclass(frozen=True, kw_only=True)
class BatchTaskSpec:
    """A Batch task to add."""

    task_id: str
    command_line: str
    resource_files: tuple[Blob, ...]
    uploads: tuple[Upload, ...]
    retries: int
    container_image: str | None = None
    max_minutes: float | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    required_slots: int = 1


@dataclass(frozen=True, kw_only=True)
class StartTask:
    """The command that each node of a pool runs before it accepts Batch tasks, as root if `as_admin` is set."""

    command_line: str
    files: tuple[Blob, ...]
    as_admin: bool = False


@dataclass(frozen=True, kw_only=True)
class PoolSpec:
    """A pool to create, with the options of the user and the values of the run."""

    pool_id: str
    options: PoolOptions
    image: Image
    autoscale_formula: str
    start_task: StartTask
    metadata: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """A job to create."""

    job_id: str
    pool_id: str
    wall_clock_seconds: float
    metadata: Mapping[str, str]
    preparation_command_line: str | None = None
    preparation_files: tuple[Blob, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Image:
    """A virtual machine image and its node agent.

    Attributes:
        resource_id: Resource id of a custom image, which replaces `publisher`, `offer`, `sku` and `version`.
        capabilities: What the image has besides the operating system, such as drivers, in lower case.
    """

    publisher: str
    offer: str
    sku: str
    version: str
    node_agent_sku: str
    is_verified: bool
    is_linux: bool
    end_of_life_at: datetime | None
    resource_id: str | None = None
    capabilities: frozenset[str] = frozenset()

    @property
    def runs_containers(self) -> bool:
        """Whether Batch tasks can run in containers."""
        return "dockercompatible" in self.capabilities

    @property
    def architecture(self) -> str:
        """Processor architecture, X64 or ARM64, by the names of the image."""
        names = f"{self.node_agent_sku} {self.offer} {self.sku}".lower()
        return ARM64 if "arm64" in names or "aarch64" in names else X64


@checked_dataclass(frozen=True, kw_only=True, config=STRICT)
class Problem:
    """An error that Batch reports for a pool or a node.

    Attributes:
        message: The message in one line, with all additional information.
        provider_code: The code of the error of the provider of virtual machines, if it caused this one.
    """

    code: str
    message: str
    provider_code: str = ""


@checked_dataclass(frozen=True, kw_only=True, config=STRICT)
class Pool:
    """A pool as Batch describes it.

    Attributes:
        allocated_at: When `allocation_state` last changed.
        scaled_at: When the autoscale formula was last evaluated; None if it never was.
        autoscale_problem: Why the last evaluation failed.
        identities: Resource ids of the managed identities of its nodes.
        slots_per_node: Number of slots for Batch tasks on each node.
    """

    pool_id: Text
    state: Text
    allocation_state: str
    allocated_at: datetime | None
    resize_problems: tuple[Problem, ...]
    metadata: Mapping[str, str]
    identities: tuple[str, ...] = ()
    scaled_at: datetime | None = None
    autoscale_problem: Problem | None = None
    slots_per_node: int = 1


@checked_dataclass(frozen=True, kw_only=True, config=STRICT)
class Node:
    """A node as Batch describes it."""

    node_id: Text
    state: Text
    problems: tuple[Problem, ...]
    start_task_exit_code: int | None


@checked_dataclass(frozen=True, kw_only=True, config=STRICT)
class Job:
    """A job as Batch describes it."""

    job_id: Text
    pool_id: str
    state: Text
    created_at: datetime | None
    terminate_reason: str | None
    metadata: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Container:
    """A blob container as Storage describes it.

    Attributes:
        age: Time since its metadata were last written, by the clock of the service.
    """

    metadata: Mapping[str, str]
    age: timedelta


@checked_dataclass(frozen=True, kw_only=True, config=STRICT)
class NodeAllocation:
    """When a node was allocated, and whether it is dedicated or preempted."""

    node_id: Text
    allocated_at: datetime | None
    is_dedicated: bool
    is_preempted: bool


@checked_dataclass(frozen=True, kw_only=True, config=STRICT)
class TaskCounts:
    """The number of Batch tasks of a job in each state."""

    active: int
    running: int
    completed: int
