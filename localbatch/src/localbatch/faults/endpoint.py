"""The HTTP interface of a fault script."""

from __future__ import annotations

import ipaddress
import json

from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from localbatch.faults.script import Faults


def serve_faults(faults: Faults | None, scope: Scope, body: bytes) -> Response:
    """Return the response to a request for a fault script: GET lists it, POST adds to it, DELETE clears it."""
    client = scope.get("client")
    # Only browsers send an Origin: no web page may change the faults of this machine.
    is_browser = any(name == b"origin" for name, _ in scope["headers"])
    if not client or not ipaddress.ip_address(client[0]).is_loopback or is_browser:
        return JSONResponse({"error": "Only programs on this machine may use the fault script."}, 403)
    if faults is None:
        return JSONResponse({"error": "Storage faults are off. Start with --storage-faults."}, 404)
    if scope["method"] == "GET":
        return JSONResponse({"faults": faults.listing()})
    if scope["method"] == "POST":
        try:
            return JSONResponse({"faults": faults.add_all(json.loads(body))}, 201)
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 400)
    if scope["method"] == "DELETE":
        faults.clear()
        return Response(status_code=204)
    return JSONResponse({"error": "The fault script allows GET, POST and DELETE."}, 405)
