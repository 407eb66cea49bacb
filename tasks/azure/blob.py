"""The storage account. No other module of `tasks` imports `azure.storage.blob`."""

from __future__ import annotations

import base64
import hashlib
import mimetypes
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from contextvars import ContextVar
from datetime import datetime, timedelta
from functools import lru_cache
from io import BytesIO
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit
from uuid import uuid4
from xml.etree import ElementTree as ET

from azure.core import MatchConditions
from azure.storage.blob import (
    BlobBlock,
    BlobClient,
    BlobProperties,
    BlobSasPermissions,
    BlobServiceClient,
    ContainerSasPermissions,
    ContentSettings,
    LocationMode,
    UserDelegationKey,
    generate_blob_sas,
    generate_container_sas,
)

from tasks.azure.client import (
    TransientRetryPolicy,
    client_options,
    default_identity,
    sign_with_service_time,
    translated_errors,
)
from tasks.azure.settings import AzureSettings, account_of
from tasks.azure.transport import is_storage_answer
from tasks.azure.values import BlobStart, Container, ListedBlob
from tasks.clock import service_time
from tasks.errors import CONDITION_NOT_MET, CONTAINER_NOT_FOUND, ConfigurationError, NotFoundError, ServiceError
from tasks.model.urls import quoted_blob

# A file up to this size is uploaded in one request. A larger one is uploaded in blocks of this size, which limits the
# memory. A blob can have 50,000 blocks. Source: https://learn.microsoft.com/rest/api/storageservices/put-block-list
BLOCK_BYTES = 8 * 1024 * 1024

# A larger blob is downloaded in parts of this size. The SDK holds up to ten of them in memory.
DOWNLOAD_BYTES = 2 * 1024 * 1024

# Reading this number of entries of a listing takes as long as a request.
MAX_LISTED_PER_BLOB = 100

# The usual and the largest size of the pages of a listing that replaces a request per blob.
PAGE_SIZE, MAX_PAGE_SIZE = 1000, 5000

# A server whose clock is behind rejects a signature that starts "now".
# Source: https://learn.microsoft.com/azure/storage/common/storage-sas-overview ("Best practices when using SAS")
MAX_CLOCK_SKEW = timedelta(minutes=15)

# No blob has this ETag.
NO_ETAG = '"0x0"'

# A larger blob is copied in the background.
# Source: https://learn.microsoft.com/rest/api/storageservices/copy-blob-from-url
MAX_SYNC_COPY_BYTES = 256 * 1024 * 1024

# The time for a copy in the background, and between two requests for its status.
MAX_COPY_TIME = timedelta(days=1)
COPY_POLL_SECONDS = 1.0

# The metadata of a copy: the version of the blob of which it is a copy.
COPIED = "topn_copied"

# All bytes of a blob.
WHOLE = slice(None)

# Source: https://learn.microsoft.com/rest/api/storageservices/get-user-delegation-key
MAX_KEY_LIFETIME = timedelta(days=7)


# Where the answers to the current listing are collected. The SDK forgets a hook of a single request when it repeats it.
_answers: ContextVar[list[Any] | None] = ContextVar("answers", default=None)


class BlobAccount:
    """A thread-safe client of one storage account."""

    def __init__(self, settings: AzureSettings) -> None:
        self._settings = settings
        endpoint = settings.storage_endpoint or ""
        self._account = settings.storage_account or account_of(endpoint) or ""
        self._key = None if settings.storage_key is None else settings.storage_key.get_secret_value()
        self._delegation_key: UserDelegationKey | None = None
        self._delegation_lock = Lock()
        credential: Any = (
            default_identity() if self._key is None else {"account_name": self._account, "account_key": self._key}
        )
        self._service = BlobServiceClient(
            endpoint,
            credential=credential,
            max_single_put_size=BLOCK_BYTES,
            max_block_size=BLOCK_BYTES,
            max_single_get_size=DOWNLOAD_BYTES,
            max_chunk_get_size=DOWNLOAD_BYTES,
            # With larger blocks, the SDK would read each block twice and out of order, which breaks the hash.
            min_large_block_upload_threshold=BLOCK_BYTES + 1,
            raw_request_hook=lambda request: sign_with_service_time(request, "Storage", "x-ms-date"),
            raw_response_hook=_collect_answer,
            **client_options("Storage", _StorageRetryPolicy(), is_storage_answer),
        )

    @property
    def endpoint(self) -> str:
        """URL of the account."""
        return str(self._service.url).rstrip("/")

    @property
    def name(self) -> str:
        """Name of the account."""
        return self._account

    def at(self, endpoint: str) -> BlobAccount:
        """Return the client of the account with this URL; this one for "" or its own URL.

        Another account is accessed with the identity that `azure.identity` finds, because no key is known.

        Raises:
            ConfigurationError: A token would be sent over plain http.
        """
        return (
            self
            if not endpoint or is_same_address(endpoint, self.endpoint)
            else _other_account(self._settings, endpoint)
        )

    def blob_url(self, container: str, blob: str) -> str:
        """Return the URL of a blob, without a signature."""
        return f"{self.endpoint}/{container}/{quoted_blob(blob)}"

    def list_blobs(
        self, container: str, prefix: str = "", start: str = "", page_size: int | None = None, **request_options: Any
    ) -> Iterator[ListedBlob]:
        """Yield the blobs whose names start with `prefix`, from the name `start` on, in the order of their names.

        Folders of accounts with a hierarchical namespace, and blobs that stand for folders, are left out.

        Raises:
            NotFoundError: The container does not exist.
        """
        # The SDK takes ten times as long to read all properties of a blob as to read its name.
        answers: list[Any] = []
        pages = (
            self._service.get_container_client(container)
            .list_blob_names(
                name_starts_with=prefix or None,
                start_from=start or None,
                include=["metadata", "copy"],
                results_per_page=page_size,
                **request_options,
            )
            .by_page()
        )
        while True:
            with translated_errors("Storage", f"list container {container}"):
                collecting = _answers.set(answers)
                try:
                    page = next(pages, None)
                finally:
                    _answers.reset(collecting)
                if page is None:
                    return
                # The last answer is the one that needed no retry.
                listing = ET.fromstring(answers[-1].http_response.body())  # noqa: S314 - the SDK has parsed it, too
                answers.clear()
                blobs = [_listed(entry) for entry in listing.iterfind("Blobs/Blob") if not _is_folder(entry)]
            yield from blobs

    def etags(self, container: str, names: Collection[str]) -> dict[str, str]:
        """Return the ETags of those of these blobs that exist, by name.

        They take one listing from the first to the last of them, unless there are many others in between. The blobs that
        it does not reach take a request each. No request has the name of a blob in its path, so all names work.
        """
        found: dict[str, str] = {}
        if len(names) > 1:
            wanted, last = set(names), max(names)
            max_listed = len(names) * MAX_LISTED_PER_BLOB
            page_size = max(min(max_listed, PAGE_SIZE), min(len(names), MAX_PAGE_SIZE))
            for blob in islice(self.list_blobs(container, start=min(names), page_size=page_size), max_listed):
                if blob.name in wanted:
                    found[blob.name] = blob.etag
                if len(found) == len(names) or blob.name > last:
                    break
        # The service orders some names of rare characters in another way than Python.
        for name in names:
            if name not in found:
                blob_or_none = next(self.list_blobs(container, name, page_size=1), None)
                if blob_or_none is not None and blob_or_none.name == name:
                    found[name] = blob_or_none.etag
        return found

    def check(self, **request_options: Any) -> None:
        """Check that the account responds and accepts the credential, by listing its containers."""
        with translated_errors("Storage", "list the containers"):
            next(iter(self._service.list_containers(results_per_page=1, **request_options)), None)

    def check_write_access(self) -> None:
        """Check write access by uploading a blob to a container that does not exist.

        Raises:
            ServiceError: Write access is denied, or Storage did not respond.
        """
        with suppress(NotFoundError), translated_errors("Storage", "write a blob"):
            self._service.get_blob_client(f"topn-check-{uuid4().hex}", "nothing").upload_blob(b"")

    def check_access(self, container: str, blob: str, **request_options: Any) -> None:
        """Check that a container can be listed, and that this blob could be written. Create nothing.

        The condition of the request that writes never holds.

        Raises:
            NotFoundError: The container does not exist.
            ServiceError: Access is denied, or Storage did not respond.
        """
        next(self.list_blobs(container, blob, page_size=1, **request_options), None)
        try:
            self.upload_document(container, blob, BytesIO(), hashlib.md5(usedforsecurity=False).digest(), NO_ETAG)
        except ServiceError as error:
            if error.code != CONDITION_NOT_MET:
                raise

    def create_container(self, name: str, metadata: Mapping[str, str]) -> None:
        """Create a container.

        Raises:
            AlreadyExistsError: A container with this name exists.
        """
        with translated_errors("Storage", f"create container {name}"):
            self._service.create_container(name, metadata=dict(metadata))

    def get_container_metadata(self, name: str) -> dict[str, str]:
        """Get the metadata of a container.

        Raises:
            NotFoundError: The container does not exist.
        """
        with translated_errors("Storage", f"get container {name}"):
            return dict(self._service.get_container_client(name).get_container_properties().metadata or {})

    def write_container_metadata(self, name: str, metadata: Mapping[str, str]) -> None:
        """Replace the metadata of a container, which sets its `age` to zero."""
        with translated_errors("Storage", f"write the metadata of container {name}"):
            self._service.get_container_client(name).set_container_metadata(dict(metadata))

    def list_containers(self, prefix: str) -> dict[str, Container]:
        """Return the containers whose names start with `prefix`, by name."""
        with translated_errors("Storage", f"list containers {prefix}…"):
            found = list(self._service.list_containers(name_starts_with=prefix, include_metadata=True))
            now = service_time("Storage")
            return {
                container.name: Container(metadata=dict(container.metadata or {}), age=now - container.last_modified)
                for container in found
            }

    def delete_container(self, name: str) -> None:
        """Delete a container if it exists."""
        try:
            with translated_errors("Storage", f"delete container {name}"):
                self._service.delete_container(name)
        except NotFoundError:
            return

    def upload_bytes(self, container: str, blob: str, content: bytes) -> None:
        """Upload a blob and overwrite an existing one."""
        with translated_errors("Storage", f"upload {container}/{blob}"):
            self._service.get_blob_client(container, blob).upload_blob(content, overwrite=True)

    def upload_file(self, container: str, path: Path, size_bytes: int, sha256: str) -> bool:
        """Upload a file as a blob named after its hash, unless the file changed since it was hashed.

        A large file is staged in blocks, one in memory at a time, and committed only if its hash matches. So an existing
        blob has the right content, and a large file is not uploaded again. A small file is always uploaded.

        Args:
            container: The container to upload to.
            path: The file.
            size_bytes: The size of the file when it was hashed.
            sha256: The hash of its content, in hexadecimal.

        Returns:
            Whether the blob exists; False means that the file changed.

        Raises:
            OSError: The file cannot be read.
        """
        client = self._service.get_blob_client(container, sha256)
        operation = f"upload {container}/{sha256}"
        with path.open("rb") as file:
            if size_bytes <= BLOCK_BYTES:
                content = file.read(BLOCK_BYTES + 1)
                is_right = hashlib.sha256(content).hexdigest() == sha256
                if is_right:
                    self.upload_bytes(container, sha256, content)
                return is_right
            with translated_errors("Storage", operation):
                if client.exists():
                    return True
            digest = hashlib.sha256()
            blocks: list[BlobBlock] = []
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
                blocks.append(BlobBlock(block_id=f"{len(blocks):08}"))
                with translated_errors("Storage", operation):
                    client.stage_block(blocks[-1].id, block)
            is_right = digest.hexdigest() == sha256
            if is_right:
                with translated_errors("Storage", operation):
                    client.commit_block_list(blocks)
            return is_right

    def upload_archive(self, container: str, blob: str, archive: BinaryIO) -> None:
        """Upload an open file as a blob, streamed, and overwrite an existing one."""
        with translated_errors("Storage", f"upload {container}/{blob}"):
            self._service.get_blob_client(container, blob).upload_blob(archive, overwrite=True)

    def upload_document(
        self, container: str, blob: str, document: BinaryIO, md5: bytes, etag: str | None = None
    ) -> None:
        """Upload an open file as a blob with its MD5 hash, streamed.

        Args:
            container: The container to upload to.
            blob: The blob.
            document: The content.
            md5: The hash of the content. The service itself computes only that of small blobs.
            etag: The ETag of the blob to overwrite, "" to overwrite none, or None to overwrite any.

        Raises:
            AlreadyExistsError: The blob exists, and `etag` is "".
            ServiceError: The blob has another ETag (`CONDITION_NOT_MET`), or any other error.
        """
        settings = ContentSettings(content_type=mimetypes.guess_type(blob)[0], content_md5=bytearray(md5))
        with translated_errors("Storage", f"upload {container}/{blob}"):
            self._service.get_blob_client(container, blob).upload_blob(
                document, overwrite=etag != "", content_settings=settings, **_if_match(etag)
            )

    def read(self, container: str, blob: str) -> tuple[bytes, str]:
        """Return the content of a blob and its ETag.

        Raises:
            NotFoundError: The blob does not exist.
        """
        with translated_errors("Storage", f"download {container}/{blob}"):
            stream = self._service.get_blob_client(container, blob).download_blob()
            return stream.readall(), stream.properties.etag

    def read_start(self, container: str, blob: str, limit: int, etag: str = "") -> BlobStart:
        """Return the first `limit` bytes of a blob, and describe it.

        Raises:
            NotFoundError: The blob does not exist.
            ServiceError: The blob does not have this ETag (`CONDITION_NOT_MET`), or any other error.
        """
        try:
            with translated_errors("Storage", f"download {container}/{blob}"):
                stream = self._service.get_blob_client(container, blob).download_blob(0, limit, **_if_match(etag))
                found = stream.properties
                return BlobStart(
                    content=stream.readall(),
                    size_bytes=int(str(found.content_range).rpartition("/")[2]),
                    etag=found.etag,
                    md5=bytes(found.content_settings.content_md5 or b"").hex(),
                )
        except ServiceError as error:
            # An empty blob has no first byte.
            if error.code == "InvalidRange":
                return BlobStart(content=b"", size_bytes=0, etag=etag, md5="")
            raise

    def copy(
        self, container: str, blob: str, source_url: str, size_bytes: int, etag: str, md5: str, version: str
    ) -> str:
        """Copy a blob of any account inside Storage, and return the ETag of the copy. It replaces an existing blob.

        Args:
            container: The container of the copy.
            blob: The copy.
            source_url: The URL of the source, with a signature that permits reading it.
            size_bytes: The size of the source.
            etag: The ETag that the source must have, or "".
            md5: The MD5 hash of the source, in hexadecimal; "" if it is not known.
            version: The value of `ListedBlob.copied` for the copy, or "".

        Raises:
            ServiceError: The source does not exist or has changed, or any other error.
        """
        client = self._service.get_blob_client(container, blob)
        in_background = size_bytes > MAX_SYNC_COPY_BYTES
        options: dict[str, Any] = {} if in_background else {"requires_sync": True}
        if etag:
            options |= {"source_etag": etag, "source_match_condition": MatchConditions.IfNotModified}
        with translated_errors("Storage", f"copy a blob to {container}/{blob}"):
            copied: Any = client.start_copy_from_url(
                source_url,
                metadata={COPIED: version} if version else None,
                **options,
            )
            if in_background:
                copied = self._wait_for_copy(client)
            if content_type := mimetypes.guess_type(blob)[0]:
                # A copy has the type of its source. What is not set again is removed.
                settings = ContentSettings(content_type=content_type, content_md5=bytearray.fromhex(md5) or None)
                copied = client.set_http_headers(settings)
        return str(copied["etag"])

    def _wait_for_copy(self, client: BlobClient) -> BlobProperties:
        while (found := client.get_blob_properties()).copy.status == "pending":
            time.sleep(COPY_POLL_SECONDS)
        if found.copy.status != "success":
            reason = found.copy.status_description or found.copy.status
            operation = f"copy a blob to {found.container}/{found.name}"
            raise ServiceError(f"Storage could not {operation}: {reason}.", service="Storage", operation=operation)
        return found

    def download(self, container: str, blob: str, part: slice = WHOLE, etag: str = "") -> Iterator[bytes]:
        """Yield the content of a blob of any size, or a part that is not empty, one block in memory at a time.

        Raises:
            NotFoundError: The blob does not exist.
            ServiceError: The blob does not have this ETag (`CONDITION_NOT_MET`), or any other error.
        """
        operation = f"download {container}/{blob}"
        length = None if part.stop is None else part.stop - part.start
        with translated_errors("Storage", operation):
            client = self._service.get_blob_client(container, blob)
            blocks = client.download_blob(part.start, length, **_if_match(etag)).chunks()
        while True:
            with translated_errors("Storage", operation):
                block = next(blocks, None)
            if block is None:
                return
            yield block

    def download_tail(self, container: str, blob: str, length: int) -> bytes:
        """Download the last `length` bytes of a blob.

        Raises:
            NotFoundError: The blob does not exist.
        """
        client = self._service.get_blob_client(container, blob)
        with translated_errors("Storage", f"download {container}/{blob}"):
            size_bytes = client.get_blob_properties().size
            if size_bytes == 0:
                return b""
            return client.download_blob(offset=max(0, size_bytes - length)).readall()

    def delete_blob(self, container: str, blob: str) -> None:
        """Delete a blob if it exists.

        Raises:
            NotFoundError: The container does not exist.
        """
        try:
            with translated_errors("Storage", f"delete {container}/{blob}"):
                self._service.get_blob_client(container, blob).delete_blob()
        except NotFoundError as error:
            if error.code == CONTAINER_NOT_FOUND:
                raise

    def read_url(self, container: str, blob: str, expires_at: datetime | None) -> str:
        """Return a secret URL that permits reading one blob until `expires_at`.

        Without `expires_at`, return the URL without a signature; the client then needs its own permission.
        """
        url = self.blob_url(container, blob)
        if expires_at is None:
            return url
        signature = generate_blob_sas(
            self._account,
            container,
            blob,
            permission=BlobSasPermissions(read=True),
            expiry=expires_at,
            **self._signing_key(expires_at),
        )
        return f"{url}?{signature}"

    def copy_url(self, container: str, blob: str) -> str:
        """Return a secret URL that permits reading one blob for as long as its copy may take."""
        return self.read_url(container, blob, service_time("Storage") + MAX_COPY_TIME)

    def write_url(self, container: str, expires_at: datetime | None) -> str:
        """Return a secret URL that permits creating and writing blobs in one container until `expires_at`.

        Without `expires_at`, return the URL without a signature; the client then needs its own permission.
        """
        url: str = self._service.get_container_client(container).url
        if expires_at is None:
            return url
        signature = generate_container_sas(
            self._account,
            container,
            permission=ContainerSasPermissions(create=True, write=True),
            expiry=expires_at,
            **self._signing_key(expires_at),
        )
        return f"{url}?{signature}"

    def _signing_key(self, expires_at: datetime) -> dict[str, Any]:
        if self._key is not None:
            return {"account_key": self._key}
        with self._delegation_lock:
            key = self._delegation_key
            if key is None or datetime.fromisoformat(str(key.signed_expiry).replace("Z", "+00:00")) < expires_at:
                starts_at = service_time("Storage") - MAX_CLOCK_SKEW
                ends_at = min(expires_at + MAX_CLOCK_SKEW, starts_at + MAX_KEY_LIFETIME)
                with translated_errors("Storage", "get a user delegation key"):
                    key = self._service.get_user_delegation_key(starts_at, ends_at)
                self._delegation_key = key
            return {"user_delegation_key": key}


@lru_cache(maxsize=64)
def _other_account(settings: AzureSettings, endpoint: str) -> BlobAccount:
    if endpoint.startswith("http:"):
        raise ConfigurationError(
            f"{endpoint} is not the configured storage account, and a token is never sent over plain http. Use https, or "
            "set TOPN_STORAGE_ENDPOINT to it."
        )
    # The path of an address without a name begins with the account, as Azurite's does.
    name = account_of(endpoint) or endpoint.rpartition("/")[2]
    return BlobAccount(
        settings.model_copy(update={"storage_endpoint": endpoint, "storage_account": name, "storage_key": None})
    )


def is_same_address(endpoint: str, other: str) -> bool:
    """Check whether two URLs of accounts are the same, also if only one of them names the port."""
    return _address(endpoint) == _address(other)


def _address(endpoint: str) -> tuple[str, str | None, int | None, str]:
    parts = urlsplit(endpoint)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname, port, parts.path.strip("/")


def _collect_answer(answer: Any) -> None:
    if (answers := _answers.get()) is not None:
        answers.append(answer)


def _if_match(etag: str | None) -> dict[str, Any]:
    return {"etag": etag, "match_condition": MatchConditions.IfNotModified} if etag else {}


def _listed(entry: ET.Element) -> ListedBlob:
    """Return a blob by its entry in a listing."""
    # Source: https://learn.microsoft.com/rest/api/storageservices/list-blobs
    problem = ""
    if entry.findtext("Properties/AccessTier") == "Archive":
        is_archived = not entry.findtext("Properties/ArchiveStatus")
        problem = "is archived: rehydrate it first" if is_archived else "is still being rehydrated"
    elif entry.findtext("Properties/CustomerProvidedKeySha256"):
        problem = "is encrypted with a key that only its owner has, so nodes cannot read it"
    # The content of a copy that has not succeeded is not what its properties say.
    is_whole = entry.findtext("Properties/CopyStatus", "success") == "success"
    return ListedBlob(
        name=_name(entry),
        size_bytes=int(entry.findtext("Properties/Content-Length", "")),
        etag=entry.findtext("Properties/Etag", "").strip('"'),
        problem=problem,
        modified=entry.findtext("Properties/Last-Modified", ""),
        md5=base64.b64decode(entry.findtext("Properties/Content-MD5", "")).hex() if is_whole else "",
        copied=entry.findtext(f"Metadata/{COPIED}", "") if is_whole else "",
    )


def _name(entry: ET.Element) -> str:
    """Return the name of a blob. XML has no way to write some characters."""
    name = entry.findtext("Name", "")
    is_encoded = "%" in name and entry.find("Name[@Encoded='true']") is not None
    return unquote(name) if is_encoded else name


def _is_folder(entry: ET.Element) -> bool:
    """Check whether a blob stands for a folder: by its metadata, as in a hierarchical namespace, or by its name."""
    is_marked = entry.findtext("Metadata/hdi_isfolder", "").lower() == "true"
    return is_marked or (_name(entry).endswith("/") and entry.findtext("Properties/Content-Length") == "0")


class _StorageRetryPolicy(TransientRetryPolicy):
    """The shared retry policy, in place of the Storage SDK's own.

    The SDK's policy first waits 15 s and never retries after a 429. The SDK sets options for its own policy and reads
    `location_mode` from each response, so this class removes the former and sets the latter.
    """

    def configure_retries(self, options: dict[str, Any]) -> dict[str, Any]:
        for name in ("hosts", "location_mode", "retry_to_secondary"):
            options.pop(name, None)
        return super().configure_retries(options)

    def send(self, request: Any) -> Any:
        response: Any = super().send(request)
        response.http_response.location_mode = LocationMode.PRIMARY
        return response
