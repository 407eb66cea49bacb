"""Refuses requests to a Prefect server on this machine from the pages of other servers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

# Only the server's own pages may contain its pages. Others could make a user click on a page that they cannot see.
NOT_FRAMED = (b"content-security-policy", b"frame-ancestors 'self'")


class OwnHostOnly:
    """An ASGI application that refuses requests and WebSockets from the pages of other servers.

    A browser names the page in the header Origin. If the page's host name was rebound to 127.0.0.1, the browser names it
    in the header Host. Programs send no Origin.
    """

    def __init__(self, app: Application, port: int) -> None:
        """Wrap an application that listens on a port of 127.0.0.1."""
        self._app = app
        hosts = [f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")]
        self._own = {b"host": hosts[0], b"origin": f"http://{hosts[0]}"}
        self._allowed = {
            b"host": {host.encode() for host in hosts},
            b"origin": {f"http://{host}".encode() for host in hosts},
        }

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Forward a request, or refuse it with a sentence."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        sent = [(name, value.lower()) for name, value in scope["headers"] if name in self._allowed]
        if not any(name == b"host" for name, _ in sent):
            sent.append((b"host", b""))
        foreign = next(((name, value) for name, value in sent if value not in self._allowed[name]), None)
        if foreign is not None:
            await self._refuse(*foreign, scope["type"], send)
            return

        async def send_not_framed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], NOT_FRAMED]
            await send(message)

        await self._app(scope, receive, send_not_framed)

    async def _refuse(self, name: bytes, value: bytes, kind: str, send: Send) -> None:
        sent_value, field = value.decode("latin-1"), name.decode().title()
        body = f"Refused: {field} is {sent_value!r} instead of {self._own[name]!r}.\n".encode()
        # A refused WebSocket gets a normal response: https://asgi.readthedocs.io/en/latest/extensions.html
        response = "websocket.http.response" if kind == "websocket" else "http.response"
        # A body may still arrive.
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
        await send({"type": f"{response}.start", "status": 403, "headers": headers})
        await send({"type": f"{response}.body", "body": body})
