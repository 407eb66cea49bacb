"""A run of `bench.own_client` without a storage account, which measures the cost of orchestration.

    python -m bench.scale INPUTS OUTPUTS NODES SLOTS FILES_PER_TASK

replaces the storage account by a stub in memory. Staging reads the files of packs and uploads nothing. Collecting
returns the outputs that simulated Batch tasks would have uploaded. With 0 files per Batch task, the flow chooses the
number.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from typing_extensions import override

import tasks.azure.accounts
from bench.own_client import SIMULATED, main
from tasks.azure.blob import WHOLE, BlobAccount
from tasks.azure.settings import AzureSettings
from tasks.azure.values import Container
from tasks.errors import NotFoundError
from tasks.workload.base import NODE_INPUT
from tasks.workload.packs import EXIT, RESULTS

[OUTPUT] = SIMULATED.outputs


class BlobAccountStub(BlobAccount):
    """A client that keeps containers in memory, and sends no requests."""

    def __init__(self, settings: AzureSettings) -> None:
        super().__init__(settings)
        self._containers: dict[str, dict[str, str]] = {}
        self._folders: dict[str, list[str]] = {}
        """The names of the folders in the archive of each pack, by Batch task id."""

    @override
    def create_container(self, name: str, metadata: Mapping[str, str]) -> None:
        """Record a container."""
        self._containers[name] = dict(metadata)

    @override
    def write_container_metadata(self, name: str, metadata: Mapping[str, str]) -> None:
        """Record the metadata of a container."""
        self._containers[name] = dict(metadata)

    @override
    def list_containers(self, prefix: str) -> dict[str, Container]:
        """Return the metadata of the containers whose names start with `prefix`, by name."""
        return {
            name: Container(metadata=metadata, age=timedelta())
            for name, metadata in self._containers.items()
            if name.startswith(prefix)
        }

    @override
    def delete_container(self, name: str) -> None:
        """Delete a container, if it exists."""
        self._containers.pop(name, None)

    @override
    def upload_bytes(self, container: str, blob: str, content: bytes) -> None:
        """Upload nothing."""

    @override
    def upload_file(self, container: str, path: Path, size_bytes: int, sha256: str) -> bool:
        """Upload nothing."""
        return True

    @override
    def upload_archive(self, container: str, blob: str, archive: BinaryIO) -> None:
        """Record the folders in the archive, and upload nothing."""
        with tarfile.open(fileobj=archive, mode="r:") as members:
            names = [member.name.partition("/") for member in members]
        self._folders[blob.removesuffix(".tar")] = [folder for folder, _, name in names if name.startswith(NODE_INPUT)]

    @override
    def download(self, container: str, blob: str, part: slice = WHOLE, etag: str = "") -> Iterator[bytes]:
        """Yield the output of a Batch task, which is its id for each file."""
        task_id, _, name = blob.partition("/")
        if name == OUTPUT:
            yield task_id.encode()
            return
        if name != RESULTS:
            raise NotFoundError(
                f"There is no {name}", service="Storage", operation="download", code="", transient=False
            )
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as archive:
            for folder in self._folders[task_id]:
                for written, text in ((OUTPUT, task_id), (EXIT, "0 1\n")):
                    member = tarfile.TarInfo(f"{folder}/{written}")
                    member.size = len(text)
                    archive.addfile(member, io.BytesIO(text.encode()))
        yield content.getvalue()

    @override
    def read_url(self, container: str, blob: str, expires_at: datetime | None) -> str:
        """Return a URL of the length of a signed URL."""
        return f"https://account.blob.core.windows.net/{container}/{blob}?sig={'x' * 150}"

    @override
    def write_url(self, container: str, expires_at: datetime | None) -> str:
        """Return a URL of the length of a signed URL."""
        return self.read_url(container, "", expires_at)


if __name__ == "__main__":
    accounts: Any = tasks.azure.accounts
    accounts._blob_account = lru_cache(BlobAccountStub)
    raise SystemExit(main())
