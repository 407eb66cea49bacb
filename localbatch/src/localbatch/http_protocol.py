"""HTTP/1.1 of the Batch account: request bodies, malformed requests, and connections closed without a response."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timezone

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from localbatch import errors
from localbatch.api.responses import JSON_TYPE

# https://learn.microsoft.com/rest/api/batchservice/tasks/create-task-collection: larger requests fail.
MAX_BODY_BYTES = 1 << 20
DEFAULT_PORTS = {"http": "80", "https": "443"}
# The timeout for each part of a body.
BODY_SECONDS = 30.0
# How long a client may continue to send after its request was refused.
LINGER_SECONDS = 5.0
# The extension of the ASGI scope that closes the connection.
_CLOSE = "localbatch.close"


class OwnHostOnly:
    """An ASGI application that refuses requests from the pages of other servers.

    A browser names the page in the header Origin. If the page's host name was rebound to 127.0.0.1, the browser names it
    in the header Host. Programs send no Origin.
    """

    def __init__(self, app: ASGIApp, endpoint: str) -> None:
        """Wrap an application that serves at a URL of this machine."""
        self._app = app
        scheme, _, address = endpoint.partition("://")
        port = address.rpartition(":")[2]
        # Clients omit the default port.
        ports = ("", f":{port}") if port == DEFAULT_PORTS[scheme] else (f":{port}",)
        hosts = [f"{name}{each}" for name in ("127.0.0.1", "localhost", "[::1]") for each in ports]
        self._own = {b"host": address, b"origin": endpoint}
        self._allowed = {
            b"host": {host.encode() for host in hosts},
            b"origin": {f"{scheme}://{host}".encode() for host in hosts},
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request, or refuse it with a sentence."""
        sent = {name: value.lower() for name, value in scope["headers"] if name in self._allowed}
        # Every browser sends Host. h11 refuses a request with two of them.
        for name, value in {b"host": b"", **sent}.items():
            if value not in self._allowed[name]:
                sent_value, field = value.decode("latin-1"), name.decode().title()
                message = f"Refused: {field} is {sent_value!r} instead of {self._own[name]!r}.\n"
                # A body may still arrive.
                await PlainTextResponse(message, 403, {"Connection": "close"})(scope, receive, send)
                return
        await self._app(scope, receive, send)


class BatchProtocol(H11Protocol):
    """The HTTP protocol of uvicorn. The application can close the connection, and malformed requests get a Batch error."""

    _is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # As in uvicorn.
        """Add a function that closes the connection to the scope of its requests."""
        super().connection_made(transport)
        app = self.app

        async def with_close(scope: Scope, receive: Receive, send: Send) -> None:
            scope["extensions"] = {_CLOSE: transport.close}
            await app(scope, receive, send)

        self.app = with_close

    def data_received(self, data: bytes) -> None:
        """Read a request, or discard what a client sends after it was refused."""
        if not self._is_refused:
            super().data_received(data)

    def shutdown(self) -> None:
        """Close the connection when the server stops."""
        if self._is_refused:
            self.transport.abort()
            return
        super().shutdown()
        if self.scheme == "https" and self.transport.is_closing():
            self.transport.abort()  # close() would wait for the TLS shutdown of the client.

    def send_400_response(self, msg: str) -> None:
        """Refuse a malformed request, and close the connection after the client or after LINGER_SECONDS.

        If the server closed first, the connection would be reset while the client sends, and the client might lose the
        response.
        """
        host, port = self.server or ("", None)
        error = errors.invalid_input(Reason=msg)
        content = json.dumps(error.document(f"{self.scheme}://{host}:{port}", datetime.now(timezone.utc))).encode()
        head = f"HTTP/1.1 400 Bad Request\r\nContent-Type: {JSON_TYPE}\r\nContent-Length: {len(content)}\r\n"
        self.transport.write(f"{head}Connection: close\r\n\r\n".encode() + content)
        self._is_refused = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)


async def read_body(receive: Receive) -> bytes:
    """Read the body of a request.

    Raises:
        ServiceError: The body is too large, which shows when all of it was read, since a client that is still sending
            does not read the response; or the next part did not arrive in time.
        ConnectionResetError: The client has closed the connection.
    """
    parts, size, is_more = [], 0, True
    while is_more:
        try:
            message = await asyncio.wait_for(receive(), BODY_SECONDS)
        except asyncio.TimeoutError:
            raise errors.operation_timed_out() from None
        if message["type"] == "http.disconnect":
            raise ConnectionResetError
        part = message.get("body", b"")
        size += len(part)
        if size <= MAX_BODY_BYTES:
            parts.append(part)
        is_more = message.get("more_body", False)
    if size > MAX_BODY_BYTES:
        raise errors.request_body_too_large(MaxLimit=MAX_BODY_BYTES)
    return b"".join(parts)


async def drop(scope: Scope, receive: Receive) -> None:
    """Close the connection of a request without a response, and return when it is closed."""
    scope["extensions"][_CLOSE]()
    while (await receive())["type"] != "http.disconnect":
        pass
