"""Folders for outputs, on this machine and in Blob Storage."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import platform
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, Literal
from urllib.parse import quote, unquote, urlsplit

from tasks.azure.blob_outputs import BlobOutput
from tasks.errors import (
    CONDITION_NOT_MET,
    CONTAINER_NOT_FOUND,
    AlreadyExistsError,
    NotFoundError,
    ServiceError,
    UsageError,
)
from tasks.files import write_atomically
from tasks.model.inputs import identity
from tasks.model.outputs import BLOCK_BYTES, Output
from tasks.model.urls import URL, Place, parse_place
from tasks.text import printable

if TYPE_CHECKING:
    from tasks.azure.blob import BlobAccount

# A document: its content, or a function that writes it to a file.
Content = bytes | Output | Callable[[BinaryIO], object]

# Uploads at the same time, which hide the latency to Azure.
UPLOAD_THREADS = 8

# Retries of the first request to an account that may not exist.
CHECK_RETRIES = 3


class ChangedError(Exception):
    """Another process changed the file after it was read."""


class Folder(ABC):
    """A folder for outputs. Paths in it are relative, with forward slashes."""

    # Number of files to write at the same time.
    threads = 1

    # Name of the machine with the folder, or "".
    host = ""

    @abstractmethod
    def __str__(self) -> str:
        """Return the path or the URL of the folder."""

    @abstractmethod
    def read(self, path: str) -> tuple[bytes, str]:
        """Return the content and the version of a file.

        Raises:
            FileNotFoundError: It does not exist.
        """

    @abstractmethod
    def write(self, path: str, content: Content, version: str | None = None) -> None:
        """Write a file as a whole, unless it has this content already.

        Args:
            path: The file.
            content: The content.
            version: The version to replace, "" for none, or None for any.

        Raises:
            ChangedError: The file has another version.
        """

    @abstractmethod
    def delete(self, path: str) -> None:
        """Delete a file if it exists."""

    @abstractmethod
    def kind(self, path: str) -> Literal["file", "folder"] | None:
        """Return what is at a path."""

    @abstractmethod
    def identity(self, path: str) -> str:
        """Return the same text for all paths of a file."""

    @abstractmethod
    def url(self, path: str) -> str:
        """Return the URL of a file."""

    def shown(self, path: str) -> str:
        """Return the path of a file for messages."""
        return self.url(path)

    def full_path(self, path: str) -> str:
        """Return the URL of a file in Blob Storage, or the absolute path of one on this machine."""
        return self.url(path)

    @abstractmethod
    def relative(self, folder: Folder, path: str) -> str | None:
        """Return the path of a file of another folder relative to this one; None if there is no such path."""

    @abstractmethod
    def locked(self) -> AbstractContextManager[None]:
        """Create the folder, and keep other processes from writing to it, where that is necessary."""

    def reference(self, folder: Folder, path: str) -> str:
        """Return how the manifest of this folder names a file of any folder."""
        return self.relative(folder, path) or folder.url(path)

    def identity_of(self, reference: str) -> str:
        """Return the identity of the file with this name in the manifest."""
        if not URL.match(reference):
            return self.identity(reference)
        parts = urlsplit(reference)
        is_here = parts.scheme == "file" and parts.netloc == platform.node()
        return identity(unquote(parts.path)) if is_here else reference

    @abstractmethod
    def check(self) -> None:
        """Check that a folder in Blob Storage can be written. Create nothing."""


class LocalFolder(Folder):
    """A folder on this machine."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.host = platform.node()

    def __str__(self) -> str:
        return os.path.abspath(self.path)

    def read(self, path: str) -> tuple[bytes, str]:
        """Return the content of a file, and no version, because a lock protects it."""
        return (self.path / path).read_bytes(), ""

    def write(self, path: str, content: Content, version: str | None = None) -> None:
        """Write a file; raise an error if a link leads out of the folder."""
        del version
        write_atomically(self._real(path), content.blocks() if isinstance(content, Output) else content)

    def delete(self, path: str) -> None:
        """Delete a file if it exists; raise an error if a link leads out of the folder."""
        self._real(path).unlink(missing_ok=True)

    def kind(self, path: str) -> Literal["file", "folder"] | None:
        """Return what is at a path. A link is what it leads to."""
        file = self.path / path
        if not os.path.lexists(file):
            return None
        return "folder" if file.is_dir() else "file"

    def identity(self, path: str) -> str:
        """Return the absolute path without links to folders."""
        return identity(str(self.path / path))

    def shown(self, path: str) -> str:
        """Return the path of a file for messages."""
        return str(self.path / path)

    def full_path(self, path: str) -> str:
        """Return the absolute path of a file."""
        return os.path.abspath(self.path / path)

    def url(self, path: str) -> str:
        """Return the URL of a file, with the name of this machine."""
        return f"file://{self.host}{quote(os.path.abspath(self.path / path))}"

    def relative(self, folder: Folder, path: str) -> str | None:
        """Return the path of a file on this machine."""
        return os.path.relpath(folder.path / path, self.path) if isinstance(folder, LocalFolder) else None

    def check(self) -> None:
        """Do nothing: the command has checked the folder, and writing creates it."""

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Create the folder, and hold a lock on it, which the kernel releases when the process ends."""
        self.path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            # Some network file systems have no locks.
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _real(self, path: str) -> Path:
        """Return the path of an output without links to folders; raise an error if it is outside the folder."""
        folder = Path(os.path.realpath((self.path / path).parent))
        if not folder.is_relative_to(os.path.realpath(self.path)):
            raise OSError(errno.ELOOP, "a link points outside the output folder")
        return folder / Path(path).name


class BlobFolder(Folder):
    """A folder in Blob Storage: the blobs whose names start with its path and a slash."""

    threads = UPLOAD_THREADS

    def __init__(self, account: BlobAccount, place: Place, name: str, only: str = "") -> None:
        """Create a folder.

        Args:
            account: The account of the place.
            place: The place. It has a container.
            name: What the folder is for, for messages.
            only: The start of all paths that are used. The rest of the folder is not listed.
        """
        self.place = place
        self.prefix = place.path if not place.path or place.path.endswith("/") else f"{place.path}/"
        self.account = account
        self.name = name
        self._only = only

    def __str__(self) -> str:
        url = self.account.blob_url(self.place.container, self.place.path)
        return url if self.place.path else url.rstrip("/")

    def read(self, path: str) -> tuple[bytes, str]:
        """Return the content of a blob and its ETag."""
        try:
            return self.account.read(self.place.container, self.prefix + path)
        except NotFoundError as error:
            if error.code == CONTAINER_NOT_FOUND:
                raise
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from error

    def write(self, path: str, content: Content, version: str | None = None) -> None:
        """Upload a blob, or copy it inside Storage, unless the listing has one with the same content."""
        if isinstance(content, BlobOutput):
            if self._has(path, content.md5) or self._has(path, content.version):
                return
            content.copy_to(self.account, self.place.container, self.prefix + path)
            self._versions[path] = (content.md5, content.version)
            return
        with BytesIO(content) if isinstance(content, bytes) else tempfile.TemporaryFile() as file:
            if isinstance(content, Output):
                file.writelines(content.blocks())
            elif not isinstance(content, bytes):
                content(file)
            file.seek(0)
            md5 = hashlib.md5(usedforsecurity=False)
            while block := file.read(BLOCK_BYTES):
                md5.update(block)
            if version is None and self._has(path, md5.hexdigest()):
                return
            file.seek(0)
            try:
                self.account.upload_document(self.place.container, self.prefix + path, file, md5.digest(), version)
            except ServiceError as error:
                if isinstance(error, AlreadyExistsError) or error.code == CONDITION_NOT_MET:
                    raise ChangedError from error
                raise
            self._versions[path] = (md5.hexdigest(), "")

    def delete(self, path: str) -> None:
        """Delete a blob if it exists."""
        self.account.delete_blob(self.place.container, self.prefix + path)
        self._versions.pop(path, None)

    def kind(self, path: str) -> Literal["file", "folder"] | None:
        """Return what is at a path. Blobs below a path make it a folder."""
        return "file" if path in self._versions else "folder" if path in self._folders else None

    def identity(self, path: str) -> str:
        """Return the URL of a blob."""
        return self.url(path)

    def url(self, path: str) -> str:
        """Return the URL of a blob."""
        return self.account.blob_url(self.place.container, self.prefix + path)

    def relative(self, folder: Folder, path: str) -> str | None:
        """Return the path of a blob below this folder."""
        if not isinstance(folder, BlobFolder) or not folder.prefix.startswith(self.prefix):
            return None
        container, other = ((each.account.endpoint, each.place.container) for each in (self, folder))
        return (folder.prefix + path).removeprefix(self.prefix) if container == other else None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock nothing: the manifest is replaced only if nobody else has changed it."""
        yield

    def check(self) -> None:
        """Check that the container exists, and can be read and written.

        Raises:
            UsageError: It does not exist, its account does not exist, or access is denied.
            ServiceError: Storage does not respond.
        """
        try:
            self.account.check_access(self.place.container, f"{self.prefix}manifest.json", retry_total=CHECK_RETRIES)
        except ServiceError as error:
            if error.transient and error.code != "HostUnknown":
                raise
            if error.code == CONTAINER_NOT_FOUND:
                reason = f"The container `{self.place.container}` does not exist. Create it, or set another place."
            else:
                reason = (
                    f"{str(error).rstrip('.')}. Set another place, or ask for the role Storage Blob Data Contributor."
                )
            raise UsageError(f"{self.name} {printable(str(self))} cannot be used: {reason}") from error

    def _has(self, path: str, version: str) -> bool:
        return bool(version) and version in self._versions.get(path, ())

    @cached_property
    def _versions(self) -> dict[str, tuple[str, str]]:
        """The MD5 hash of each blob by its path, and the version of which it is a copy. Each may be "".

        It is one listing, which writes and deletions keep up to date.
        """
        return {
            blob.name.removeprefix(self.prefix): (blob.md5, blob.copied)
            for blob in self.account.list_blobs(self.place.container, self.prefix + self._only)
        }

    @cached_property
    def _folders(self) -> set[str]:
        return {str(parent) for path in self._versions for parent in PurePosixPath(path).parents}


def open_folder(text: str, account: BlobAccount | None = None, name: str = "The output folder") -> Folder:
    """Return a folder by its path or URL.

    Args:
        text: A path, or the URL of a place in Blob Storage.
        account: The configured account; by default that of the settings.
        name: What the folder is for, for messages.

    Raises:
        UsageError: The URL does not name a container in Blob Storage, or contains a signature.
        ConfigurationError: No Azure is configured.
    """
    if not URL.match(text):
        return LocalFolder(text)
    place = parse_container(name, text)
    if account is None:
        from tasks.azure.accounts import blob_account  # noqa: PLC0415 - imports the SDKs, which is slow

        account = blob_account()
    return BlobFolder(account.at(place.account), place, name)


def open_parent(text: str, account: BlobAccount | None, name: str) -> tuple[Folder, str]:
    """Return the folder of a file and its name there, by its path or URL.

    Raises:
        UsageError: As `open_folder`, or the URL does not name a blob.
    """
    if not URL.match(text):
        return LocalFolder(Path(text).parent), Path(text).name
    folder = open_folder(text, account, name)
    assert isinstance(folder, BlobFolder)  # noqa: S101 - for mypy
    parent, _, base = folder.place.path.rpartition("/")
    if not base:
        raise UsageError(f"{name} {printable(text)} is not the URL of a blob. Add a name.")
    return BlobFolder(folder.account, replace(folder.place, path=parent), name, base), base


def parse_container(name: str, text: str) -> Place:
    """Parse the URL of a place in a container.

    Raises:
        UsageError: It is no such URL, or contains a signature.
    """
    place = parse_place(name, text)
    if not place.container:
        raise UsageError(f"{name} {printable(text)} names no container. Use az://CONTAINER/PATH.")
    return place
