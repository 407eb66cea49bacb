"""An in-memory Blob Storage account that answers HTTP requests, and adapters that put it below HTTP clients.

The account serves the requests of the flow and of the nodes, and behaves as Azurite does: `test_storage_contract.py` runs
the same tests against both. It has no threads and never waits, and equal requests at equal times get equal responses.

In two cases that no client here depends on, it follows Azure and not Azurite: it rejects ranges that start at or after
the end of a blob, and a blob with only uncommitted blocks does not exist. It simplifies two things: it checks only the
account of a SharedKey and not its signature, and names of metadata are in lower case, as are the names of headers.
It has no leases, snapshots, CRC64 checksums, stored access policies or user delegation keys.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.message import Message
from email.utils import format_datetime
from http import HTTPStatus
from io import BytesIO
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit
from urllib.response import addinfourl
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

import requests
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict
from urllib3 import HTTPHeaderDict, HTTPResponse

_T = TypeVar("_T")

# Azurite's default port.
PORT = 10000

# Source: Blob service REST API, "List Containers" and "List Blobs", maxresults.
MAX_RESULTS = 5000

# Status and message by error code, as Azurite returns them. For an invalid signature, Azurite returns
# AuthorizationFailure and Azure returns AuthenticationFailed, both with status 403.
ERRORS = {
    "AuthorizationFailure": (403, "Server failed to authenticate the request."),
    "AuthorizationPermissionMismatch": (403, "This request is not authorized to perform this operation."),
    "BlobAlreadyExists": (409, "The specified blob already exists."),
    "BlobNotFound": (404, "The specified blob does not exist."),
    "CannotVerifyCopySource": (404, "The specified container does not exist."),
    "ConditionNotMet": (412, "The condition specified using HTTP conditional header(s) is not met."),
    "ContainerAlreadyExists": (409, "The specified container already exists."),
    "ContainerNotFound": (404, "The specified container does not exist."),
    "InvalidBlockList": (400, "The specified block list is invalid."),
    "InvalidOperation": (400, "The account does not serve this operation."),
    "InvalidRange": (416, "The range specified is invalid for the current size of the resource."),
    "InvalidResourceName": (400, "The specified resource name contains invalid characters."),
    "Md5Mismatch": (
        400,
        "The MD5 value specified in the request did not match with the MD5 value calculated by the server.",
    ),
    "InvalidXmlDocument": (400, "XML specified is not syntactically valid."),
    "OutOfRangeInput": (400, "One of the request inputs is out of range."),
}

# The parameters that a service SAS signs, in this order; "/" stands for the path of the resource.
# Source: Storage REST API, "Create a service SAS", string-to-sign of version 2020-12-06 and later.
SIGNED_PARAMETERS = (
    *("sp", "st", "se", "/", "si", "sip", "spr", "sv", "sr", "snapshot", "ses"),
    *("rscc", "rscd", "rsce", "rscl", "rsct"),
)


@dataclass(frozen=True)
class Request:
    """An HTTP request as a server receives it. The names of the headers are in lower case."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Response:
    """An HTTP response as a server sends it."""

    status: int
    headers: dict[str, str]
    body: bytes = b""


@dataclass
class Blob:
    """A committed block blob. `blocks` has the content of its blocks by id; it is empty after Put Blob.

    `md5` is the hash in Base64 that the client has set, or "". The service computes it only for Put Blob. `copy` has the
    headers of a copy.
    """

    content: bytes
    blocks: dict[str, bytes]
    content_type: str
    created_at: datetime
    modified_at: datetime
    etag: str
    md5: str
    metadata: dict[str, str] = field(default_factory=dict)
    copy: dict[str, str] = field(default_factory=dict)


@dataclass
class Container:
    """A container with its committed blobs, and the uncommitted blocks by blob name."""

    metadata: dict[str, str]
    modified_at: datetime
    etag: str
    committed: dict[str, Blob] = field(default_factory=dict)
    uncommitted: dict[str, dict[str, bytes]] = field(default_factory=dict)

    @property
    def blobs(self) -> dict[str, bytes]:
        """The content of each committed blob by name, in a new dictionary."""
        return {name: blob.content for name, blob in self.committed.items()}


class _StorageError(Exception):
    """An error response of the service."""


@dataclass(frozen=True)
class _Call:
    """A request, and what its URL addresses."""

    request: Request
    container: str
    blob: str
    query: Mapping[str, str]


class MemoryStorage:
    """A storage account that is kept in memory.

    Attributes:
        endpoint: The URL of the account. No server listens there.
        containers: The containers by name.
    """

    def __init__(self, account: str, key: str, now: Callable[[], datetime]) -> None:
        """Create an account without containers.

        Args:
            account: The name of the account.
            key: Its key in Base64, which signs shared access signatures.
            now: The clock of the service; it returns aware datetimes.
        """
        self.endpoint = f"http://127.0.0.1:{PORT}/{account}"
        self.containers: dict[str, Container] = {}
        self._account = account
        self._key = base64.b64decode(key)
        self._now = now
        self._requests = 0
        self._etags = 0
        # By method, level of the URL, restype and comp: the handler, and the permissions of a SAS that allow it.
        self._operations: dict[tuple[str, str, str, str], tuple[Callable[[_Call], Response], str]] = {
            ("GET", "account", "", "list"): (self._list_containers, ""),
            ("PUT", "container", "container", ""): (self._create_container, ""),
            ("GET", "container", "container", ""): (self._get_container, ""),
            ("HEAD", "container", "container", ""): (self._get_container, ""),
            ("DELETE", "container", "container", ""): (self._delete_container, ""),
            ("PUT", "container", "container", "metadata"): (self._set_container_metadata, ""),
            ("GET", "container", "container", "list"): (self._list_blobs, "l"),
            ("PUT", "blob", "", ""): (self._put_blob, "cw"),
            ("PUT", "blob", "", "block"): (self._put_block, "w"),
            ("PUT", "blob", "", "blocklist"): (self._put_block_list, "w"),
            ("PUT", "blob", "", "properties"): (self._set_blob_properties, "w"),
            ("GET", "blob", "", ""): (self._get_blob, "r"),
            ("HEAD", "blob", "", ""): (self._get_blob, "r"),
            ("DELETE", "blob", "", ""): (self._delete_blob, "d"),
        }

    def answer(self, request: Request) -> Response:
        """Return the response to a request; errors are responses, not exceptions."""
        self._requests += 1
        request_id = f"{self._requests:08x}-0000-0000-0000-000000000000"
        try:
            response = self._dispatch(request)
        except _StorageError as error:
            code = str(error)
            status, message = ERRORS[code]
            details = f"{message}\nRequestId:{request_id}\nTime:{self._now().isoformat()}"
            response = _xml(f"<Error><Code>{code}</Code><Message>{details}</Message></Error>", status)
            response.headers["x-ms-error-code"] = code
        response.headers |= {"x-ms-request-id": request_id, "x-ms-version": "2026-06-06", "Date": _date(self._now())}
        if "x-ms-client-request-id" in request.headers:
            response.headers["x-ms-client-request-id"] = request.headers["x-ms-client-request-id"]
        response.headers["Content-Length"] = str(len(response.body))
        if request.method == "HEAD":
            response.body = b""
        return response

    def _dispatch(self, request: Request) -> Response:
        parts = urlsplit(request.url)
        _, account, container, blob, *_ = [*unquote(parts.path).split("/", 3), "", "", ""]
        query = dict(parse_qsl(parts.query))
        call = _Call(request, container, blob.replace("\\", "/"), query)
        if container and not 3 <= len(container) <= 63:
            raise _StorageError("OutOfRangeInput")
        if container and not re.fullmatch(r"(?!.*--)[a-z0-9][a-z0-9-]*[a-z0-9]", container):
            raise _StorageError("InvalidResourceName")
        level = "blob" if blob else "container" if container else "account"
        operation = self._operations.get((request.method, level, query.get("restype", ""), query.get("comp", "")))
        if not operation:
            raise _StorageError("InvalidOperation")
        handle, permissions = operation
        if account != self._account:
            raise _StorageError("AuthorizationFailure")
        if not request.headers.get("authorization", "").startswith(f"SharedKey {self._account}:"):
            self._check_signature(call, permissions)
        return handle(call)

    def _check_signature(self, call: _Call, permissions: str) -> None:
        """Check the SAS of a URL: its signature, its validity period, then its permissions."""
        query = call.query
        resource = f"/blob/{self._account}/{call.container}" + (f"/{call.blob}" if query.get("sr") == "b" else "")
        signed = "\n".join(resource if name == "/" else query.get(name, "") for name in SIGNED_PARAMETERS)
        expected = base64.b64encode(hmac.digest(self._key, signed.encode(), "sha256"))
        is_signed = query.get("sr") in {"b", "c"} and hmac.compare_digest(expected, query.get("sig", "").encode())
        if not (is_signed and call.container and self._is_valid_now(query)):
            raise _StorageError("AuthorizationFailure")
        if call.blob in self._blobs(call) and permissions == "cw":
            permissions = "w"  # Replacing a blob needs more permission than creating one.
        if not set(permissions) & set(query["sp"]):
            raise _StorageError("AuthorizationPermissionMismatch")

    def _is_valid_now(self, query: Mapping[str, str]) -> bool:
        try:
            starts_at = _instant(query["st"]) if "st" in query else self._now()
            return starts_at <= self._now() <= _instant(query["se"])
        except (KeyError, ValueError):
            return False

    def _blobs(self, call: _Call) -> dict[str, Blob]:
        """Return the blobs of the container of a call, which need not exist."""
        container = self.containers.get(call.container)
        return container.committed if container else {}

    def _container(self, call: _Call) -> Container:
        if call.container not in self.containers:
            raise _StorageError("ContainerNotFound")
        return self.containers[call.container]

    def _blob(self, call: _Call) -> Blob:
        blobs = self._container(call).committed
        if call.blob not in blobs:
            raise _StorageError("BlobNotFound")
        return blobs[call.blob]

    def _new_etag(self) -> str:
        self._etags += 1
        return f'"0x{self._etags:015X}"'

    def _list_containers(self, call: _Call) -> Response:
        has_metadata = "metadata" in call.query.get("include", "")
        page, rest = _page(self.containers, call.query)
        items = ""
        for name, container in page.items():
            items += (
                f"<Container><Name>{name}</Name><Properties><Last-Modified>{_date(container.modified_at)}</Last-Modified>"
                f"<Etag>{container.etag}</Etag></Properties>"
                f"{_metadata_xml(container.metadata) if has_metadata else ''}</Container>"
            )
        return _xml(f"<EnumerationResults><Containers>{items}</Containers>{rest}</EnumerationResults>")

    def _create_container(self, call: _Call) -> Response:
        if call.container in self.containers:
            raise _StorageError("ContainerAlreadyExists")
        container = Container(_metadata(call), self._now(), self._new_etag())
        self.containers[call.container] = container
        return Response(201, {"ETag": container.etag, "Last-Modified": _date(container.modified_at)})

    def _set_container_metadata(self, call: _Call) -> Response:
        container = self._container(call)
        container.metadata, container.modified_at, container.etag = _metadata(call), self._now(), self._new_etag()
        return Response(200, {"ETag": container.etag, "Last-Modified": _date(container.modified_at)})

    def _get_container(self, call: _Call) -> Response:
        container = self._container(call)
        metadata = {f"x-ms-meta-{name}": value for name, value in container.metadata.items()}
        return Response(200, {"ETag": container.etag, "Last-Modified": _date(container.modified_at), **metadata})

    def _delete_container(self, call: _Call) -> Response:
        self._container(call)
        del self.containers[call.container]
        return Response(202, {})

    def _list_blobs(self, call: _Call) -> Response:
        page, rest = _page(self._container(call).committed, call.query)
        items = "".join(
            f"<Blob><Name>{escape(name)}</Name><Properties><Creation-Time>{_date(blob.created_at)}</Creation-Time>"
            f"<Last-Modified>{_date(blob.modified_at)}</Last-Modified><Etag>{blob.etag[1:-1]}</Etag>"
            f"<Content-Length>{len(blob.content)}</Content-Length><Content-Type>{escape(blob.content_type)}</Content-Type>"
            f"{f'<Content-MD5>{blob.md5}</Content-MD5>' if blob.md5 else ''}"
            f"{f'<CopyStatus>{status}</CopyStatus>' if (status := blob.copy.get('x-ms-copy-status')) else ''}"
            f"<BlobType>BlockBlob</BlobType></Properties>{_metadata_xml(blob.metadata)}</Blob>"
            for name, blob in page.items()
        )
        return _xml(f"<EnumerationResults><Blobs>{items}</Blobs>{rest}</EnumerationResults>")

    def _put_blob(self, call: _Call) -> Response:
        if "x-ms-copy-source" in call.request.headers:
            return self._copy_blob(call)
        if call.request.headers.get("x-ms-blob-type") != "BlockBlob":
            raise _StorageError("InvalidOperation")
        md5 = base64.b64encode(hashlib.md5(call.request.body, usedforsecurity=False).digest()).decode()
        if call.request.headers.get("x-ms-blob-content-md5", md5) != md5:
            raise _StorageError("Md5Mismatch")
        return self._commit(call, call.request.body, {}, call.request.headers.get("content-type"), md5)

    def _copy_blob(self, call: _Call) -> Response:
        """Copy a blob at once, also if the client does not require that."""
        url = urlsplit(call.request.headers["x-ms-copy-source"])
        _, account, container, blob = unquote(url.path).split("/", 3)
        source = _Call(call.request, container, blob, dict(parse_qsl(url.query)))
        self._container(call)
        if account != self._account or container not in self.containers:
            raise _StorageError("CannotVerifyCopySource")
        self._check_signature(source, "r")
        found = self._blob(source)
        if call.request.headers.get("x-ms-source-if-match", found.etag) != found.etag:
            raise _StorageError("ConditionNotMet")
        response = self._commit(call, found.content, dict(found.blocks), found.content_type, found.md5)
        copied = self._blob(call)
        copied.metadata = _metadata(call) or dict(found.metadata)
        copied.copy = {"x-ms-copy-id": f"copy-{self._requests}", "x-ms-copy-status": "success"}
        response.status = 202
        response.headers |= copied.copy
        return response

    def _set_blob_properties(self, call: _Call) -> Response:
        """Set the properties of a blob. Those that the request does not have are removed."""
        blob = self._blob(call)
        headers = call.request.headers
        blob.content_type = headers.get("x-ms-blob-content-type", "")
        blob.md5 = headers.get("x-ms-blob-content-md5", "")
        blob.modified_at, blob.etag = self._now(), self._new_etag()
        return Response(200, {"ETag": blob.etag, "Last-Modified": _date(blob.modified_at)})

    def _put_block(self, call: _Call) -> Response:
        blocks = self._container(call).uncommitted.setdefault(call.blob, {})
        blocks[call.query.get("blockid", "")] = call.request.body
        return Response(201, {})

    def _put_block_list(self, call: _Call) -> Response:
        container = self._container(call)
        uncommitted = container.uncommitted.get(call.blob, {})
        committed = container.committed[call.blob].blocks if call.blob in container.committed else {}
        known = {"Uncommitted": uncommitted, "Committed": committed, "Latest": {**committed, **uncommitted}}
        try:
            listed = [(item.text or "", known[item.tag]) for item in ET.fromstring(call.request.body)]
            content = [(block_id, blocks[block_id]) for block_id, blocks in listed]
        except ET.ParseError:
            raise _StorageError("InvalidXmlDocument") from None
        except KeyError:
            raise _StorageError("InvalidBlockList") from None
        container.uncommitted.pop(call.blob, None)
        whole = b"".join(block for _, block in content)
        headers = call.request.headers
        md5 = headers.get("x-ms-blob-content-md5", "")
        return self._commit(call, whole, dict(content), headers.get("x-ms-blob-content-type"), md5)

    def _commit(
        self, call: _Call, content: bytes, blocks: dict[str, bytes], content_type: str | None, md5: str
    ) -> Response:
        container = self._container(call)
        now = self._now()
        old = container.committed.get(call.blob)
        if old and call.request.headers.get("if-none-match") == "*":
            raise _StorageError("BlobAlreadyExists")
        expected = call.request.headers.get("if-match")
        if expected not in {None, "*", old.etag if old else ""}:
            raise _StorageError("ConditionNotMet")
        blob = Blob(content, blocks, content_type or "application/octet-stream", now, now, self._new_etag(), md5)
        blob.created_at = old.created_at if old else now
        container.committed[call.blob] = blob
        return Response(201, {"ETag": blob.etag, "Last-Modified": _date(now)})

    def _get_blob(self, call: _Call) -> Response:
        blob = self._blob(call)
        headers = call.request.headers
        if headers.get("if-match", blob.etag) not in {"*", blob.etag}:
            raise _StorageError("ConditionNotMet")
        response = Response(
            200,
            {
                "ETag": blob.etag,
                "Last-Modified": _date(blob.modified_at),
                "x-ms-creation-time": _date(blob.created_at),
                "Content-Type": blob.content_type,
                "Accept-Ranges": "bytes",
                "x-ms-blob-type": "BlockBlob",
                **{f"x-ms-meta-{name}": value for name, value in blob.metadata.items()},
                **blob.copy,
            },
            blob.content,
        )
        if blob.md5:
            response.headers["Content-MD5"] = blob.md5
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("x-ms-range") or headers.get("range") or "")
        size = len(blob.content)
        # An invalid range is ignored. Source: RFC 9110, section 14.2.
        if wanted and call.request.method == "GET" and int(wanted[1]) <= int(wanted[2] or wanted[1]):
            start, end = int(wanted[1]), min(int(wanted[2] or size), size - 1)
            if start >= size:
                raise _StorageError("InvalidRange")
            response.status, response.body = 206, blob.content[start : end + 1]
            response.headers["Content-Range"] = f"bytes {start}-{end}/{size}"
            if "Content-MD5" in response.headers:
                response.headers["x-ms-blob-content-md5"] = response.headers.pop("Content-MD5")
        return response

    def _delete_blob(self, call: _Call) -> Response:
        self._blob(call)
        del self._container(call).committed[call.blob]
        return Response(202, {})


def _metadata(call: _Call) -> dict[str, str]:
    prefix = "x-ms-meta-"
    headers = call.request.headers.items()
    return {name[len(prefix) :]: value for name, value in headers if name.startswith(prefix)}


def _metadata_xml(metadata: Mapping[str, str]) -> str:
    items = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in metadata.items())
    return f"<Metadata>{items}</Metadata>" if items else ""


def _page(items: Mapping[str, _T], query: Mapping[str, str]) -> tuple[dict[str, _T], str]:
    """Return the requested page of items, and the elements MaxResults and NextMarker."""
    prefix, marker, start = (query.get(name, "") for name in ("prefix", "marker", "startFrom"))
    size = query.get("maxresults", str(MAX_RESULTS))
    if not size.isdecimal() or int(size) < 1:
        raise _StorageError("OutOfRangeInput")
    # Azurite sorts as JavaScript does, by UTF-16 units.
    names = sorted((name for name in items if name.startswith(prefix)), key=_utf16)
    names = [name for name in names if _utf16(name) > _utf16(marker) and _utf16(name) >= _utf16(start)]
    page = names[: min(int(size), MAX_RESULTS)]
    marker = escape(page[-1]) if len(page) < len(names) else ""
    # The SDK asks for pages of the size that an answer states.
    return {name: items[name] for name in page}, f"<MaxResults>{size}</MaxResults><NextMarker>{marker}</NextMarker>"


def _utf16(text: str) -> bytes:
    return text.encode("utf-16-be")


def _instant(text: str) -> datetime:
    instant = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return instant if instant.tzinfo else instant.replace(tzinfo=timezone.utc)


def _date(instant: datetime) -> str:
    return format_datetime(instant.astimezone(timezone.utc), usegmt=True)


def _xml(document: str, status: int = 200) -> Response:
    body = f'<?xml version="1.0" encoding="UTF-8" standalone="yes"?>{document}'
    return Response(status, {"Content-Type": "application/xml"}, body.encode())


class InProcessAdapter(BaseAdapter):
    """Sends the requests of a `requests.Session` to a function instead of a network connection.

    What the function raises reaches the caller, so a connection fault is one of `requests.exceptions`. A body that is
    shorter than the Content-Length of its response fails while it is read, as a cut connection does.
    """

    def __init__(self, handler: Callable[[Request], Response]) -> None:
        super().__init__()
        self._handler = handler

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        """Return the handler's response to `request`."""
        url, method = request.url or "", request.method or "GET"
        headers = {"host": urlsplit(url).netloc}
        headers |= {name.lower(): _text(value) for name, value in request.headers.items()}
        answer = self._handler(Request(method, url, headers, _content(request.body)))
        names = HTTPHeaderDict(answer.headers)
        response = requests.Response()
        response.status_code = answer.status
        response.reason = HTTPStatus(answer.status).phrase
        response.headers = CaseInsensitiveDict(names)
        response.url = url
        response.request = request
        response.raw = HTTPResponse(
            BytesIO(b"" if method == "HEAD" else answer.body),
            names,
            answer.status,
            reason=response.reason,
            preload_content=False,
            decode_content=False,
            request_method=method,
        )
        return response

    def close(self) -> None:
        """Do nothing: there are no connections."""


class InProcessSession(requests.Session):
    """A session that sends each request of the SDK's `RequestsTransport` to a function, without further preparation.

    It halves the time of a request, because `requests.Session` reads environment, cookies and `.netrc` each time.
    Its parameters are those of `requests.Session.request` that the transport sets, so an unknown option is an error.
    """

    def __init__(self, handler: Callable[[Request], Response]) -> None:
        super().__init__()
        self._adapter = InProcessAdapter(handler)

    def request(  # type: ignore[override]  # requests allows more parameters, of other types.
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        data: Any,
        files: None,
        verify: bool | str,
        timeout: tuple[float, float],
        cert: Any,
        allow_redirects: bool,
        proxies: Any,
        stream: bool = False,
    ) -> requests.Response:
        """Return the handler's response."""
        request = requests.PreparedRequest()
        request.method, request.url, request.body = method, url, data
        request.headers = CaseInsensitiveDict(headers)
        if method not in {"GET", "HEAD"}:
            request.prepare_content_length(data)
        response = self._adapter.send(request)
        if not stream:
            _ = response.content  # Reading the body raises the error of a truncated response.
        return response


class InProcessHandler(urllib.request.HTTPHandler):
    """Sends the requests of a `urllib` opener to a function, as `InProcessAdapter` does for `requests`."""

    def __init__(self, handler: Callable[[Request], Response]) -> None:
        super().__init__()
        self._handler = handler

    def http_open(self, req: urllib.request.Request) -> Any:
        """Return the handler's response to `req`."""
        headers = {name.lower(): value for name, value in req.header_items()}
        answer = self._handler(Request(req.get_method(), req.full_url, headers, _content(req.data)))
        names = Message()
        for name, value in answer.headers.items():
            names[name] = value
        response: Any = addinfourl(BytesIO(answer.body), names, req.full_url, answer.status)
        response.msg = HTTPStatus(answer.status).phrase
        return response


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _content(body: Any) -> bytes:
    """Read the body of a prepared request, which is text, bytes, a file or an iterable of bytes."""
    if body is None:
        return b""
    if isinstance(body, (bytes, bytearray)):
        return bytes(body)
    if isinstance(body, str):
        return body.encode()
    read = getattr(body, "read", None)
    if read is not None:
        return bytes(read())
    chunks: Iterable[bytes] = body
    return b"".join(chunks)
