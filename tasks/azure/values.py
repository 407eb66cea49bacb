"""What the steps and the Batch adapter tell each other: what to create, and what the service says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from tasks.model.pool import PoolOptions


@dataclass(frozen=True, kw_only=True)
class Blob:
    """A blob that a node fetches: a URL that may be read, and the name that the file gets in the working directory.

    Attributes:
        identity: Resource id of the identity by which it may be read; None where the URL itself says so.
    """

    url: str
    file_path: str
    identity: str | None = None


@dataclass(frozen=True, kw_only=True)
class Upload:
    """Files that the node agent puts into a container after a Batch task: a pattern, and where to.

    Attributes:
        identity: Resource id of the identity by which that may be done; None where the URL itself says so.
    """

    pattern: str
    container_url: str
    path: str
    only_on_success: bool
    identity: str | None = None


@dataclass(frozen=True, kw_only=True)
class BatchTaskSpec:
    """A Batch task to add."""

    task_id: str
    command_line: str
    resource_files: tuple[Blob, ...]
    uploads: tuple[Upload, ...]
    retries: int
    container_image: str | None = None


@dataclass(frozen=True, kw_only=True)
class StartTask:
    """What each node of a pool runs when it joins, before it takes Batch tasks; as root or not."""

    command_line: str
    files: tuple[Blob, ...]
    as_admin: bool = False


@dataclass(frozen=True, kw_only=True)
class PoolSpec:
    """A pool to create: the user's options, and what the run decides."""

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
    """A virtual machine image, and the node agent for it.

    Attributes:
        resource_id: Of an image of the user's own, which nothing else names.
        runs_containers: Whether Batch tasks can run in containers there.
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
    runs_containers: bool = False


@dataclass(frozen=True, kw_only=True)
class Problem:
    """An error that the service reports of a pool or a node."""

    code: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Pool:
    """What the service says of a pool; `identities` are the resource ids of those that its nodes have."""

    pool_id: str
    state: str
    allocation_state: str
    allocated_at: datetime | None
    resize_problems: tuple[Problem, ...]
    metadata: Mapping[str, str]
    identities: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Node:
    """What the service says of a node."""

    node_id: str
    state: str
    problems: tuple[Problem, ...]
    start_task_exit_code: int | None


@dataclass(frozen=True, kw_only=True)
class Job:
    """What the service says of a job."""

    job_id: str
    pool_id: str
    state: str
    created_at: datetime | None
    terminate_reason: str | None
    metadata: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class NodeLife:
    """Since when a node belongs to its pool."""

    node_id: str
    allocated_at: datetime | None
    is_dedicated: bool
    is_preempted: bool


@dataclass(frozen=True, kw_only=True)
class TaskCounts:
    """How many Batch tasks of a job are in which state."""

    active: int
    running: int
    completed: int
