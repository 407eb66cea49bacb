"""A proxy in front of the storage account that injects faults.

It does not change the other requests and responses, because signatures cover them: it forwards heads as received, and
bodies while they arrive.

https://learn.microsoft.com/rest/api/storageservices/blob-service-rest-api
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import uuid
from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timezone
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

from localbatch.faults.definitions import Fault, code_of, message_of
from localbatch.faults.script import Faults, meet
from localbatch.processes.certificate import Certificate
from localbatch.processes.sockets import abort_connections, listen

if TYPE_CHECKING:
    from typing_extensions import Self

MAX_HEAD_BYTES = 1 << 16
BLOCK_BYTES = 1 << 16
# Raised when one side closes its connection, or does not send HTTP.
_CONNECTION_ERRORS = (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError)

# Operations by method and the query parameter `comp`, on the account, containers and blobs.
_ACCOUNT = {
    "GET list": "list_containers",
    "GET properties": "get_service_properties",
    "PUT properties": "set_service_properties",
    "POST userdelegationkey": "get_user_delegation_key",
    "POST batch": "submit_batch",
}
_CONTAINER = {
    "PUT": "create_container",
    "GET": "get_container_properties",
    "HEAD": "get_container_properties",
    "DELETE": "delete_container",
    "GET list": "list_blobs",
    "PUT metadata": "set_container_metadata",
    "GET metadata": "get_container_metadata",
    "PUT acl": "set_container_acl",
    "GET acl": "get_container_acl",
    "PUT lease": "lease_container",
}
_BLOB = {
    "PUT": "put_blob",
    "GET": "get_blob",
    "HEAD": "get_blob_properties",
    "DELETE": "delete_blob",
    "PUT block": "put_block",
    "PUT blocklist": "put_block_list",
    "GET blocklist": "get_block_list",
    "PUT metadata": "set_blob_metadata",
    "GET metadata": "get_blob_metadata",
    "PUT properties": "set_blob_properties",
    "PUT tags": "set_blob_tags",
    "GET tags": "get_blob_tags",
    "PUT tier": "set_blob_tier",
    "PUT lease": "lease_blob",
    "PUT snapshot": "snapshot_blob",
    "PUT appendblock": "append_block",
    "PUT page": "put_page",
    "PUT copy": "abort_copy_blob",
}
# The same request with the header x-ms-copy-source is another operation.
_COPIES = {"put_blob": "copy_blob", "put_block": "put_block_from_url"}
OPERATIONS = frozenset({*_ACCOUNT.values(), *_CONTAINER.values(), *_BLOB.values(), *_COPIES.values()})


class _Head(NamedTuple):
    """The start line and the headers of a request or response."""

    raw: bytes
    start: tuple[str, str, str]
    """Method, target and version, or version, status and reason."""
    headers: Mapping[str, str]

    @property
    def operation(self) -> str:
        # The depth of the path tells account, container and blob apart.
        method, target, _ = self.start
        path, _, query = target.partition("?")
        depth = len(path.strip("/").split("/", 2))
        comp = parse_qs(query).get("comp", [""])[0].lower()
        operation = (_ACCOUNT, _CONTAINER, _BLOB)[depth - 1].get(f"{method} {comp}".strip(), "")
        return _COPIES.get(operation, operation) if "x-ms-copy-source" in self.headers else operation

    @property
    def is_interim(self) -> bool:
        return self.start[1].startswith("1")

    def has_body(self, method: str) -> bool:
        """Whether this response has a body."""
        return method != "HEAD" and not self.is_interim and self.start[1] not in {"204", "304"}

    @property
    def closes(self) -> bool:
        return self.headers.get("connection", "").lower() == "close"


class StorageProxy:
    """A proxy in front of a storage account; a context manager."""

    def __init__(self, target: str, faults: Faults, *, port: int, certificate: Certificate | None = None) -> None:
        """Listen, without accepting connections yet.

        Args:
            target: The URL of the account on this machine.
            faults: The fault script.
            port: The port; if it is taken or 0, any free port.
            certificate: The certificate of the proxy and of the account, if they use https.
        """
        self._server_context = certificate.server_context() if certificate else None
        self._client_context = certificate.client_context() if certificate else None
        parts = urlsplit(target)
        self._address = (parts.hostname, parts.port)
        self._faults = faults
        self._listener = listen(port)
        self.endpoint = f"{parts.scheme}://127.0.0.1:{self._listener.getsockname()[1]}{parts.path}"
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(
            target=lambda: self._loop.run_until_complete(self._serve()), name="localbatch-storage", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        self._loop.close()

    async def _serve(self) -> None:
        connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = self._loop.create_task(self._forward_connection(reader, writer))
            connections[task] = writer
            task.add_done_callback(connections.pop)

        async with await asyncio.start_server(
            accept, sock=self._listener, limit=MAX_HEAD_BYTES, ssl=self._server_context
        ):
            await self._stopping.wait()
            for task, writer in connections.items():
                writer.close()  # A task that has not started will not close it.
                task.cancel()
            await asyncio.gather(*connections, return_exceptions=True)
        await abort_connections()

    async def _forward_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward the requests of one connection until either side closes it."""
        async with _closing(writer):
            with contextlib.suppress(*_CONNECTION_ERRORS):
                while await self._forward_request(reader, writer):
                    pass

    async def _forward_request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Forward one request or apply its fault. Return whether the connection stays open."""
        head = await _read_head(reader)
        fault = await meet(self._faults, head.operation, head.start[1].partition("?")[0])
        if fault and fault.fault != "drop_after":
            if head.headers.get("expect"):
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await _forward_body(reader, None, head)
            if fault.fault == "answer":
                writer.write(_error_response(fault, with_body=head.start[0] != "HEAD"))
                await writer.drain()
            return fault.fault == "answer" and not head.closes
        # Each request has its own connection: the account could close an idle one while the next request arrives.
        answers, upstream = await asyncio.open_connection(
            *self._address, limit=MAX_HEAD_BYTES, ssl=self._client_context
        )
        async with _closing(upstream):
            upstream.write(head.raw)
            # The response may arrive before the whole body is sent, and the body may wait for `100 Continue`.
            body = asyncio.ensure_future(_forward_body(reader, upstream, head))
            try:
                answer = await _read_head(answers)
                while answer.is_interim:
                    writer.write(answer.raw)
                    answer = await _read_head(answers)
                receiver = None if fault else writer
                if receiver:
                    receiver.write(answer.raw)
                if answer.has_body(head.start[0]):
                    await _forward_body(answers, receiver, answer)
                await writer.drain()
                return not fault and body.done() and not body.exception() and not head.closes and not answer.closes
            finally:
                body.cancel()
                await asyncio.gather(body, return_exceptions=True)


@contextlib.asynccontextmanager
async def _closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    try:
        yield
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _read_head(reader: asyncio.StreamReader) -> _Head:
    raw = await reader.readuntil(b"\r\n\r\n")
    first, *lines = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
    one, two, three = [*first.split(" ", 2), ""][:3]
    pairs = (line.partition(":") for line in lines)
    return _Head(raw, (one, two, three), {name.strip().lower(): value.strip() for name, _, value in pairs})


async def _forward_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter | None, head: _Head) -> None:
    """Forward a body. Without a writer, discard it."""
    if head.headers.get("transfer-encoding", "").lower() != "chunked":
        await _forward_bytes(reader, writer, int(head.headers.get("content-length", 0)))
        return
    while size := int((await _forward_line(reader, writer)).split(b";")[0], 16):
        await _forward_bytes(reader, writer, size + 2)  # Including the line break.
    while await _forward_line(reader, writer) != b"\r\n":
        pass


async def _forward_line(reader: asyncio.StreamReader, writer: asyncio.StreamWriter | None) -> bytes:
    line = await reader.readuntil(b"\r\n")
    if writer:
        writer.write(line)
    return line


async def _forward_bytes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter | None, count: int) -> None:
    while count:
        data = await reader.read(min(count, BLOCK_BYTES))
        if not data:
            raise asyncio.IncompleteReadError(b"", count)
        count -= len(data)
        if writer:
            writer.write(data)
            await writer.drain()


def _error_response(fault: Fault, *, with_body: bool) -> bytes:
    """Return an error response of the storage account.

    https://learn.microsoft.com/rest/api/storageservices/status-and-error-codes2
    """
    request_id, now = uuid.uuid4(), datetime.now(timezone.utc)
    text = f"{message_of(fault)}\nRequestId:{request_id}\nTime:{now:%Y-%m-%dT%H:%M:%S.%f}Z"
    body = (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        f"<Error><Code>{escape(code_of(fault))}</Code><Message>{escape(text)}</Message></Error>"
    ).encode()
    headers = {
        "Content-Type": "application/xml",
        "Content-Length": str(len(body) if with_body else 0),
        "x-ms-error-code": code_of(fault),
        "x-ms-request-id": str(request_id),
        "Date": f"{now:%a, %d %b %Y %H:%M:%S} GMT",
    }
    if fault.retry_after is not None:
        headers["Retry-After"] = str(fault.retry_after)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {fault.status} {HTTPStatus(fault.status).phrase}\r\n{lines}\r\n".encode("latin-1") + (
        body if with_body else b""
    )
