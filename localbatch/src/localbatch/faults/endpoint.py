"""The HTTP interface of a fault script."""

from __future__ import annotations

import json

from starlette.responses import JSONResponse, Response

from localbatch.faults.script import Faults


def serve_faults(faults: Faults | None, method: str, body: bytes, *, is_authentic: bool) -> Response:
    """Return the response to a request for a fault script: GET lists it, POST adds to it, DELETE clears it."""
    if not is_authentic:
        message = (
            "The fault script needs the name and the key of the Batch account, as `curl --user NAME:KEY` sends them."
        )
        return JSONResponse({"error": message}, 401)
    if faults is None:
        return JSONResponse({"error": "Storage faults are off. Start with --storage-faults."}, 404)
    if method == "GET":
        return JSONResponse({"faults": faults.listing()})
    if method == "POST":
        try:
            return JSONResponse({"faults": faults.add_all(json.loads(body))}, 201)
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 400)
    if method == "DELETE":
        faults.clear()
        return Response(status_code=204)
    return JSONResponse({"error": "The fault script allows GET, POST and DELETE."}, 405)
