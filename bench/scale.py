"""What the flow itself costs as files grow in number: its Prefect server and `localbatch` are real, storage is not.

    python -m bench.scale INPUTS OUTPUTS NODES SLOTS FILES_PER_TASK

runs `bench.own_client` with a storage account that is a dictionary: staging reads the files of packs and sends nothing, and
collecting finds what simulated Batch tasks would have left. 0 files a Batch task leaves the choice to the flow.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import tasks.azure.accounts
from bench.own_client import SIMULATED, main
from tasks.errors import NotFoundError
from tasks.workload.base import NODE_INPUT
from tasks.workload.packs import EXIT, RESULTS

[OUTPUT] = SIMULATED.outputs


class RememberedBlobs:
    """The part of `BlobAccount` that a run uses, without a storage account."""

    def __init__(self) -> None:
        self._containers: dict[str, dict[str, str]] = {}
        self._folders: dict[str, list[str]] = {}
        """The folders in each pack's archive, by the id of its Batch task."""

    def create_container(self, name: str, metadata: Mapping[str, str]) -> None:
        """Remember a container."""
        self._containers[name] = dict(metadata)

    def containers(self, prefix: str) -> dict[str, dict[str, str]]:
        """List the containers."""
        return {name: found for name, found in self._containers.items() if name.startswith(prefix)}

    def delete_container(self, name: str) -> None:
        """Forget a container."""
        self._containers.pop(name, None)

    def upload_bytes(self, container: str, blob: str, content: bytes) -> None:
        """Send nothing."""

    def upload_file(self, container: str, path: Path, size_bytes: int, sha256: str) -> bool:
        """Send nothing."""
        return True

    def upload_archive(self, container: str, blob: str, archive: BinaryIO) -> None:
        """Send nothing, and remember what is in it."""
        with tarfile.open(fileobj=archive, mode="r:") as members:
            names = [member.name.partition("/") for member in members]
        self._folders[blob.removesuffix(".tar")] = [folder for folder, _, name in names if name == NODE_INPUT]

    def download(self, container: str, blob: str, *, last_bytes: int | None = None) -> bytes:
        """Give what the Batch task would have left: its id, for each file."""
        task_id, _, name = blob.partition("/")
        if name == OUTPUT:
            return task_id.encode()
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
        return content.getvalue()

    def read_url(self, container: str, blob: str, expires_at: datetime) -> str:
        """Give a URL as long as a signed one."""
        return f"https://account.blob.core.windows.net/{container}/{blob}?sig={'x' * 150}"

    def write_url(self, container: str, expires_at: datetime) -> str:
        """Give a URL as long as a signed one."""
        return self.read_url(container, "", expires_at)


if __name__ == "__main__":
    blobs: Any = RememberedBlobs()
    accounts: Any = tasks.azure.accounts
    accounts._blob_account = lambda _: blobs
    raise SystemExit(main())
