"""The values that the steps hand to each other: frozen, without behaviour beyond what follows from their fields.

Instants are timezone-aware UTC and end in ``_at``; durations are seconds; a pair of names like ``file`` and ``name``
means the absolute path on this machine, and the path below the inputs' common folder that people see. What there is one of
for each file has slots, since there may be a hundred thousand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from tasks.model.naming import OWNER, is_owned_by, run_prefix
from tasks.model.pool import DEFAULT_SETUP, PoolSetup


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


@dataclass(frozen=True, kw_only=True)
class Containers:
    """Names of the three blob containers of a run."""

    application: str
    inputs: str
    outputs: str


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
