"""A run, its resources, and what is kept of them.

All values that the steps pass to each other are frozen. Times are timezone-aware, in UTC, and their names end in ``_at``.
Durations are in seconds. In a pair of ``path`` and ``name``, the first is an absolute path on this machine. The second is
relative to the root of the input, and is the one that users see. Classes with one instance per file have slots,
since a run can have 100,000 files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone

from tasks.model.naming import APPLICATION_SUFFIX, INPUTS_SUFFIX, OUTPUTS_SUFFIX, OWNER, is_owned_by, run_prefix
from tasks.model.pool import DEFAULT_SETUP, PoolSetup


@dataclass(frozen=True, kw_only=True)
class Run:
    """One attempt of a flow run, up to its cleanup. The names of all its resources are derived from it.

    Attributes:
        generation: Start time in seconds since 1970, by which the names of this attempt differ from those of others.
        deadline_at: When the run stops waiting, and its resources expire.
        keep: Resources that neither the cleanup of the run nor a sweep deletes.
    """

    flow_run_id: str
    generation: int
    deadline_at: datetime
    keep: Keep

    @property
    def name(self) -> str:
        """Id of the run's pool and of its job, and prefix of the names of its containers."""
        return f"{run_prefix(self.flow_run_id)}{self.generation}"

    @property
    def started_at(self) -> datetime:
        """Start time of this attempt, by the clock of the service."""
        return datetime.fromtimestamp(self.generation, timezone.utc)

    @property
    def containers(self) -> Containers:
        """Names of the containers of the run."""
        return Containers.of(self.name)

    def metadata(self, *, kept: bool) -> dict[str, str]:
        """Return the metadata of a resource of this run: its owner, its expiry and whether it is kept."""
        return {
            "owner": OWNER,
            "flow_run_id": self.flow_run_id,
            "expires_at": self.deadline_at.isoformat(timespec="seconds"),
            **({"kept": "true"} if kept else {}),
        }

    def owns(self, metadata: Mapping[str, str]) -> bool:
        """Check whether a resource with this metadata belongs to this flow run."""
        return is_owned_by(self.flow_run_id, metadata)


@dataclass(frozen=True, kw_only=True)
class Keep:
    """Resources that a cleanup does not delete."""

    containers: bool = False
    job: bool = False
    pool: bool = False


KEEP_NOTHING = Keep()


@dataclass(frozen=True, kw_only=True)
class Containers:
    """Names of the three blob containers of a run."""

    application: str
    inputs: str
    outputs: str

    @classmethod
    def of(cls, run_name: str) -> Containers:
        """Return the names of the containers of a run, by its name."""
        return cls(
            application=f"{run_name}{APPLICATION_SUFFIX}",
            inputs=f"{run_name}{INPUTS_SUFFIX}",
            outputs=f"{run_name}{OUTPUTS_SUFFIX}",
        )

    @property
    def names(self) -> tuple[str, str, str]:
        """All three names."""
        return (self.application, self.inputs, self.outputs)


@dataclass(frozen=True, kw_only=True)
class BatchJob:
    """The run's job, and how its Batch tasks find the workload's files and access blobs.

    Attributes:
        files_variable: The ``AZ_BATCH_…`` variable that contains the folder of the workload's files on a node.
        setup: Configuration of the pool's nodes.
        node_identity: Resource id of the managed identity with which nodes access blobs; None for signed URLs.
        task_minutes: Time limit of each Batch task; None for none besides that of the job.
    """

    job_id: str
    pool_id: str
    files_variable: str
    setup: PoolSetup = DEFAULT_SETUP
    node_identity: str | None = None
    task_minutes: float | None = None
