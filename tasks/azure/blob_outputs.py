"""Outputs that stay in Blob Storage: they are copied there, and read only where a workload needs that."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tasks.model.outputs import START_BYTES, Output, Scratch

if TYPE_CHECKING:
    from tasks.azure.blob import BlobAccount


@dataclass(frozen=True, slots=True, eq=False)
class BlobOutput(Output):
    """A blob. It cannot be read or copied any more once it has another ETag.

    Attributes:
        md5: MD5 hash of the content, in hexadecimal; "" if the service does not know it.
        start: The first `START_BYTES` bytes.
    """

    account: BlobAccount
    container: str
    blob: str
    etag: str
    md5: str
    size_bytes: int
    start: bytes = field(repr=False)

    @property
    def version(self) -> str:
        """Text that identifies this version of this blob."""
        url = self.account.blob_url(self.container, self.blob)
        return hashlib.sha256(f"{url}\n{self.etag}".encode("utf-8", "surrogateescape")).hexdigest()

    def blocks(self, limit: int | None = None) -> Iterator[bytes]:
        """Yield the content, or its first `limit` bytes, in blocks."""
        end = self.size_bytes if limit is None else min(limit, self.size_bytes)
        if end <= len(self.start):
            return iter([self.start[:end]])
        return self.download(0, end)

    def part(self, offset: int, size_bytes: int) -> Output:
        """Return a part of the content; raise a `ValueError` if it is not within it."""
        self.check_part(offset, size_bytes)
        return _BlobPart(self, offset, size_bytes)

    def download(self, offset: int, end: int) -> Iterator[bytes]:
        """Yield the bytes from `offset` up to `end`, which is greater, in blocks."""
        return self.account.download(self.container, self.blob, slice(offset, end), self.etag)

    def copy_to(self, account: BlobAccount, container: str, blob: str) -> BlobOutput:
        """Copy the blob inside Storage, and return the copy.

        Raises:
            ServiceError: The blob does not exist any more or has changed, or any other error.
        """
        url = self.account.copy_url(self.container, self.blob)
        etag = account.copy(container, blob, url, self.size_bytes, self.etag, self.md5, self.version)
        return replace(self, account=account, container=container, blob=blob, etag=etag)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle where the blob is."""
        values = (self.container, self.blob, self.etag, self.md5, self.size_bytes, self.start)
        return (_unpickle, (self.account.endpoint, *values))


@dataclass(frozen=True, slots=True, eq=False)
class _BlobPart(Output):
    whole: BlobOutput
    offset: int
    size_bytes: int

    def blocks(self, limit: int | None = None) -> Iterator[bytes]:
        end = self.size_bytes if limit is None else min(limit, self.size_bytes)
        return self.whole.download(self.offset, self.offset + end) if end else iter(())

    def part(self, offset: int, size_bytes: int) -> Output:
        self.check_part(offset, size_bytes)
        return replace(self, offset=self.offset + offset, size_bytes=size_bytes)


def open_blob(
    account: BlobAccount, container: str, blob: str, scratch: Scratch, max_bytes: int = START_BYTES, etag: str = ""
) -> Output:
    """Return the content of a blob: one of up to `max_bytes` is downloaded, a larger one stays in Storage.

    Raises:
        NotFoundError: The blob does not exist.
        ServiceError: The blob does not have this ETag (`CONDITION_NOT_MET`), or any other error.
    """
    found = account.read_start(container, blob, max_bytes, etag)
    if found.size_bytes <= max_bytes:
        return scratch.add([found.content])
    start = found.content[:START_BYTES]
    return BlobOutput(account, container, blob, found.etag, found.md5, found.size_bytes, start)


def _unpickle(endpoint: str, container: str, blob: str, etag: str, md5: str, size_bytes: int, start: bytes) -> Output:
    from tasks.azure.accounts import blob_account  # noqa: PLC0415 - imports the SDKs, which is slow

    return BlobOutput(blob_account().at(endpoint), container, blob, etag, md5, size_bytes, start)
