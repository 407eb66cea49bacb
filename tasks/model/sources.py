"""Results of blobs. Until a blob has been read, its name and its ETag identify it, and not its content."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.model.verdict import StoredResult


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A folder of blobs that a workload processes.

    Attributes:
        workload: Hash of the workload.
        container: Account and container, as "account/container", without endpoint and port.
        folder: Start of the names of all these blobs, up to its last slash; "" for the whole container.
    """

    workload: str
    container: str
    folder: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceResult:
    """A result of a blob.

    Attributes:
        blob: The name of the blob.
        result: The result.
        local_key: Content key of a local file with the same content; "" if unknown.
    """

    blob: str
    result: StoredResult
    local_key: str = ""
