"""Faults and HTTP: the script of faults at `/_internal`, and connections that are closed without an answer."""

from __future__ import annotations

import ipaddress
import json
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from localbatch.faults import Faults

if TYPE_CHECKING:
    import asyncio

_CLOSE = "localbatch.close"


class DroppingProtocol(H11Protocol):
    """The HTTP of uvicorn, but an application may close the connection: ASGI has no word for it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Give every request on the connection the means to close it."""
        super().connection_made(transport)
        app = self.app

        async def with_close(scope: Scope, receive: Receive, send: Send) -> None:
            scope["extensions"] = {_CLOSE: transport.close}
            await app(scope, receive, send)

        self.app = with_close


async def drop(scope: Scope, receive: Receive) -> None:
    """Close the connection of a request without an answer; return when it is closed."""
    scope["extensions"][_CLOSE]()
    while (await receive())["type"] != "http.disconnect":
        pass


def serve_faults(faults: Faults | None, scope: Scope, body: bytes | None) -> Response:
    """Answer a request for a script of faults: GET lists it, POST adds to it, DELETE empties it."""
    client = scope.get("client")
    # A browser on this machine sends an Origin with what a page of somebody else's asks for.
    is_browser = any(name == b"origin" for name, _ in scope["headers"])
    if not client or not ipaddress.ip_address(client[0]).is_loopback or is_browser:
        return JSONResponse({"error": "Only programs on this machine may ask"}, 403)
    if faults is None:
        return JSONResponse({"error": "No storage faults can happen: start with --storage-faults"}, 404)
    if scope["method"] == "GET":
        return JSONResponse({"faults": faults.listing()})
    if scope["method"] == "POST":
        try:
            return JSONResponse({"faults": faults.add_all(json.loads(body or b""))}, 201)
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 400)
    if scope["method"] == "DELETE":
        faults.clear()
        return Response(status_code=204)
    return JSONResponse({"error": "GET, POST or DELETE"}, 405)
