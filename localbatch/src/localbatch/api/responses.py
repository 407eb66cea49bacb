"""Responses of the REST API: one object, a part of one, or no body."""

from __future__ import annotations

import json
from collections.abc import Callable
from http import HTTPStatus

from starlette.responses import Response

from localbatch import wire
from localbatch.account.records import Job, JobSchedule, Pool, Task
from localbatch.account.specs import Json
from localbatch.api import odata
from localbatch.api.requests import Call
from localbatch.api.response_bodies import SELECTABLE

JSON_TYPE = "application/json;odata=minimalmetadata"


def json_answer(call: Call, kind: str, body: Json, record: Pool | Job | JobSchedule | Task | None = None) -> Response:
    """Return a response with an object, and the etag of its record."""
    # The service sends minimal OData metadata with every object.
    content = {"odata.metadata": f"{call.base}/$metadata#{kind}"} | body
    return Response(json.dumps(content), headers=_tags(record), media_type=JSON_TYPE)


def one(call: Call, kind: str, body: Json, record: Pool | Job | JobSchedule | Task | None = None) -> Response:
    """Return a response with the properties of a record that the request selects."""
    return json_answer(call, f"{kind}/@Element", selection(call, kind)(body), record)


def selection(call: Call, kind: str) -> Callable[[Json], Json]:
    """Return the function that keeps the properties that a request selects."""
    odata.check_expand(call.query.get("$expand"))
    return odata.read_select(call.query.get("$select") if kind in SELECTABLE else None, SELECTABLE.get(kind, ()))


def done(status: int, record: Pool | Job | JobSchedule | Task | None = None, url: str | None = None) -> Response:
    """Return a response without a body."""
    headers = _tags(record)
    # The official clients ignore both headers, but the service sends them.
    if url:
        headers |= {"DataServiceId": url}
    if url and status == HTTPStatus.CREATED:
        headers |= {"Location": url}
    return Response(status_code=status, headers=headers)


def _tags(record: Pool | Job | JobSchedule | Task | None) -> dict[str, str]:
    if not record:
        return {}
    # Batch tasks are not modified until their properties change.
    modified_at = record.modified_at
    if not modified_at:
        modified_at = record.created_at
    return {"ETag": record.etag, "Last-Modified": wire.http_date(modified_at)}
