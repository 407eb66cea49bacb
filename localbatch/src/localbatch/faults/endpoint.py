"""The HTTP interface of a fault script."""

from __future__ import annotations

import ipaddress
import json

from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from localbatch.faults.script import Faults


def serve_faults(faults: Faults | None, scope: Scope, body: object) -> Response:
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
            return JSONResponse({"faults": faults.add_all(json.loads(body if isinstance(body, bytes) else b""))}, 201)
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 400)
    if scope["method"] == "DELETE":
        faults.clear()
        return Response(status_code=204)
    return JSONResponse({"error": "GET, POST or DELETE"}, 405)
