"""HTTP around the service: bodies, what is no HTTP, connections without an answer, and the script of faults."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timezone

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from localbatch import errors
from localbatch.api.responses import JSON_TYPE

MAX_BODY_BYTES = 1 << 20
"""Source: Batch REST API, Add Task Collection."""
BODY_SECONDS = 30.0
"""How long the next part of a body is waited for."""
LINGER_SECONDS = 5.0
"""How long a client may go on sending after its bytes were refused."""
_CLOSE = "localbatch.close"


class BatchProtocol(H11Protocol):
    """The HTTP of uvicorn, but an application may close the connection, and what is no HTTP is refused as Batch does."""

    _is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Give every request on the connection the means to close it."""
        super().connection_made(transport)
        app = self.app

        async def with_close(scope: Scope, receive: Receive, send: Send) -> None:
            scope["extensions"] = {_CLOSE: transport.close}
            await app(scope, receive, send)

        self.app = with_close

    def data_received(self, data: bytes) -> None:
        """Read a request, or discard what a client still sends after it was refused."""
        if not self._is_refused:
            super().data_received(data)

    def shutdown(self) -> None:
        """Close a connection that has nothing to say any more."""
        if self._is_refused:
            self.transport.abort()
            return
        super().shutdown()
        if self.scheme == "https" and self.transport.is_closing():
            self.transport.abort()  # Close alone would wait for the other side to close, too.

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, and close the connection once the client has closed it, or after a while.

        Closing at once would reset the connection while the client still sends, and the client may lose the answer.
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


async def read_body(receive: Receive) -> bytes | errors.ServiceError | None:
    """Return the body of a request, why it is refused, or None if the client has gone.

    One that is too large is read all the same, so that the client listens.
    """
    parts, size, is_more = [], 0, True
    while is_more:
        try:
            message = await asyncio.wait_for(receive(), BODY_SECONDS)
        except asyncio.TimeoutError:
            return errors.operation_timed_out()
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        size += len(part)
        if size <= MAX_BODY_BYTES:
            parts.append(part)
        is_more = message.get("more_body", False)
    return b"".join(parts) if size <= MAX_BODY_BYTES else errors.request_body_too_large(MaxLimit=MAX_BODY_BYTES)


async def drop(scope: Scope, receive: Receive) -> None:
    """Close the connection of a request without an answer; return when it is closed."""
    scope["extensions"][_CLOSE]()
    while (await receive())["type"] != "http.disconnect":
        pass
