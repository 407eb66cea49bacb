"""The options of a Batch account and of a local Azure, with their defaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from localbatch.clock import Clock
from localbatch.processes.certificate import Certificate

# Like those of Azurite, this account and key are well known. Anyone on the machine can use an account with this key.
DEVELOPMENT_ACCOUNT = "localbatch"
DEVELOPMENT_KEY = "bG9jYWxiYXRjaCBpcyBubyBzZWNyZXQsIGl0cyBrZXkgaXMgd2VsbCBrbm93bi4="

# Real processes, or simulated tasks that only take time.
RUNNERS = ("processes", "simulated")


@dataclass(frozen=True, kw_only=True)
class RequestRecord:
    """One request to the Batch account, and its response.

    Attributes:
        status: The status of the response; 0 if the connection was closed without one.
        bytes: The size of the body of the response.
    """

    operation: str
    method: str
    path: str
    status: int
    started_at: datetime
    ended_at: datetime
    bytes: int

    def __str__(self) -> str:
        milliseconds = (self.ended_at - self.started_at).total_seconds() * 1000
        return f"{self.status} {self.operation} {self.method} {self.path} {self.bytes} bytes {milliseconds:.1f} ms"


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of a local Azure. A Batch account alone ignores those of storage.

    Attributes:
        state_dir: The folder of blobs, which are kept, and of nodes, which are removed at the end. If another local Azure
            uses it, the first free folder next to it is used. Default: a temporary folder.
        pace: The durations of transitional states: instant, fast or real.
        port: The port of the Batch account; if it is taken or 0, any free port.
        key: The key of the Batch account, in Base64; None for a random one, which a local Azure keeps in its folder.
        pool_quota: Maximum number of pools.
        job_quota: Maximum number of jobs that are not completed.
        core_quota: Maximum number of cores of the dedicated nodes of all pools; None for no limit.
        low_priority_core_quota: The same for spot nodes.
        family_core_quotas: Maximum numbers of cores of dedicated nodes, by VM family such as `standardDSv3Family`.
        runner: `processes`, or `simulated` for tasks that only take time.
        task_seconds: The default duration of a simulated task.
        task_output: The content of each output file of simulated tasks; None for no files.
        node_start_seconds: The time from the creation of a node to its start task; None for that of the pace.
        sample_delay_seconds: The time from enabling autoscale until the first samples; None for that of the pace.
        clock: The clock of the service. Move it with `LocalBatch.advance` only.
        certificate: The certificate of both servers; without one they use http.
        oauth: Whether bearer tokens are accepted too. Their signatures are not checked.
        tenant: The id of the only tenant whose tokens are accepted.
        on_request: Called after each request to the Batch account.
        storage_port: The port of the storage account; if it is taken or 0, any free port.
        storage_key: The key of the storage account, in Base64; None for a random one, which is kept in the folder.
        storage_faults: Whether faults can be injected into requests to the storage account, by a proxy in front of it.
    """

    state_dir: Path | str | None = None
    pace: str = "fast"
    port: int = 0
    key: str | None = None
    # The service reported these two quotas for a new account in 2024.
    pool_quota: int = 100
    job_quota: int = 300
    core_quota: int | None = None
    low_priority_core_quota: int | None = None
    family_core_quotas: Mapping[str, int] = field(default_factory=dict)
    runner: str = RUNNERS[0]
    task_seconds: float = 0.0
    task_output: str | None = None
    node_start_seconds: float | None = None
    sample_delay_seconds: float | None = None
    clock: Clock | None = None
    certificate: Certificate | None = None
    oauth: bool = False
    tenant: str | None = None
    on_request: Callable[[RequestRecord], None] | None = None
    storage_port: int = 0
    storage_key: str | None = None
    storage_faults: bool = False

    def __post_init__(self) -> None:
        if self.oauth and not self.certificate:
            raise ValueError("Clients send tokens over https only. Set a certificate too.")
