"""The files of a results store: in a folder, or in a blob container."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tasks.azure.blob_outputs import BlobOutput, open_blob
from tasks.azure.settings import state_folder
from tasks.clock import read_http_date
from tasks.errors import CONDITION_NOT_MET, CONTAINER_NOT_FOUND, NotFoundError, ServiceError
from tasks.files import ensure_private_folder, write_atomically
from tasks.model.outputs import BLOCK_BYTES, Output, Scratch

if TYPE_CHECKING:
    from tasks.azure.blob import BlobAccount

# The folder of the manifests of runs, and what follows the id of a run in their names.
RUNS, RUN_SUFFIX = "runs/", ".json"


class ListedFile(NamedTuple):
    """A file of a store, with the time of its last change."""

    name: str
    size_bytes: int
    modified_at: datetime


class ResultFiles(ABC):
    """Files by name. Names have forward slashes."""

    @abstractmethod
    def read(self, name: str) -> Iterator[bytes]:
        """Yield the content of a file."""

    def read_start(self, name: str, max_bytes: int) -> bytes:
        """Return the first bytes of a file."""
        return b"".join(self.read(name))[:max_bytes]

    @abstractmethod
    def write(self, name: str, blocks: Iterable[bytes]) -> None:
        """Write a file atomically, and replace an existing one."""

    def copy(self, name: str, output: Output) -> BlobOutput | None:
        """Copy an output to a new file inside Storage, and return that; None if one of them is not in Storage."""
        del name, output
        return None

    def open_copy(self, name: str, etag: str, scratch: Scratch) -> Output:
        """Return the content of such a file, which must have this ETag if it is in Storage."""
        del etag
        return scratch.add(self.read(name))

    @abstractmethod
    def list_files(self, folder: str) -> Iterator[ListedFile]:
        """Yield each file below a folder, whose name ends with a slash. It need not exist."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Delete a file if it exists."""


class FolderFiles(ResultFiles):
    """Files in a folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, name: str) -> Iterator[bytes]:
        """Yield the content of a file."""
        with (self._folder / name).open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                yield block

    def read_start(self, name: str, max_bytes: int) -> bytes:
        """Return the first bytes of a file."""
        with (self._folder / name).open("rb") as file:
            return file.read(max_bytes)

    def write(self, name: str, blocks: Iterable[bytes]) -> None:
        """Write a file atomically, and replace an existing one."""
        if self._folder.parent == state_folder():
            ensure_private_folder(self._folder.parent)
        write_atomically(self._folder / name, blocks)

    def list_files(self, folder: str) -> Iterator[ListedFile]:
        """Yield each file below a folder."""
        for parent, _, names in os.walk(self._folder / folder, onerror=_raise_unless_missing):
            for name in names:
                path = Path(parent, name)
                try:
                    found = path.lstat()
                except FileNotFoundError:
                    continue
                modified_at = datetime.fromtimestamp(found.st_mtime, timezone.utc)
                yield ListedFile(path.relative_to(self._folder).as_posix(), found.st_size, modified_at)

    def delete(self, name: str) -> None:
        """Delete a file if it exists."""
        (self._folder / name).unlink(missing_ok=True)


class ContainerFiles(ResultFiles):
    """Blobs of a container.

    Attributes:
        prefix: The start of the names of all these blobs.
    """

    def __init__(self, account: BlobAccount, container: str, prefix: str = "") -> None:
        self._account = account
        self._container = container
        self.prefix = prefix

    def read(self, name: str) -> Iterator[bytes]:
        """Yield the content of a blob."""
        return self._account.download(self._container, self.prefix + name)

    def read_start(self, name: str, max_bytes: int) -> bytes:
        """Return the first bytes of a blob."""
        return self._account.read_start(self._container, self.prefix + name, max_bytes).content

    def write(self, name: str, blocks: Iterable[bytes]) -> None:
        """Write a blob, and replace an existing one."""
        with Scratch().add(blocks).open() as file:
            self._account.upload_archive(self._container, self.prefix + name, file)

    def copy(self, name: str, output: Output) -> BlobOutput | None:
        """Copy an output inside Storage, if it is there."""
        if not isinstance(output, BlobOutput):
            return None
        return output.copy_to(self._account, self._container, self.prefix + name)

    def open_copy(self, name: str, etag: str, scratch: Scratch) -> Output:
        """Return the content of a blob, which stays in Storage."""
        return open_blob(self._account, self._container, self.prefix + name, scratch, etag=etag)

    def list_files(self, folder: str) -> Iterator[ListedFile]:
        """Yield each blob below a folder."""
        for blob in self._account.list_blobs(self._container, self.prefix + folder):
            modified_at = read_http_date(blob.modified) or datetime.fromtimestamp(0, timezone.utc)
            yield ListedFile(blob.name.removeprefix(self.prefix), blob.size_bytes, modified_at)

    def delete(self, name: str) -> None:
        """Delete a blob if it exists."""
        self._account.delete_blob(self._container, self.prefix + name)


def is_missing_file(error: Exception) -> bool:
    """Return whether an error means that only this file does not exist, or only with another ETag."""
    if isinstance(error, ServiceError) and error.code == CONDITION_NOT_MET:
        return True
    if isinstance(error, NotFoundError):
        return error.code != CONTAINER_NOT_FOUND
    return isinstance(error, FileNotFoundError)


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
