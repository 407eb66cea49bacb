"""Lists: the records of a page, and the token of the next page."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from starlette.responses import Response

from localbatch import errors
from localbatch.account.queues import SortedRecords
from localbatch.account.specs import Json
from localbatch.api import odata
from localbatch.api.requests import Call
from localbatch.api.responses import json_answer, selection

_T = TypeVar("_T")

# The maximum and the default of maxresults.
# https://learn.microsoft.com/rest/api/batchservice/common-parameters-and-headers
PAGE_SIZE = 1000
MAX_DIGITS = len(str(PAGE_SIZE))


def page(
    records: Mapping[str, _T], matches: Callable[[_T], bool], size: int, token: str | None
) -> tuple[list[_T], str | None]:
    """Return one page of the matching records, in the order of their keys.

    Args:
        records: All records.
        matches: Whether a record belongs to the list.
        size: The number of records per page.
        token: The token of the page; None for the first page.

    Returns:
        The records, and the token of the next page if there is one.
    """
    after = _read_token(token) if token else ""
    found: list[_T] = []
    last = ""
    # One record more than the page has shows that there is a next page.
    for key, record in _in_order(records, after):
        if matches(record):
            if len(found) == size:
                return found, _write_token(last)
            found.append(record)
            last = key
    return found, None


def _in_order(records: Mapping[str, _T], after: str) -> Iterator[tuple[str, _T]]:
    # SortedRecords start at any key in logarithmic time; other mappings are short.
    if isinstance(records, SortedRecords):
        return records.after(after)
    return ((key, records[key]) for key in sorted(records) if key > after)


def _write_token(key: str) -> str:
    # The SDK does not encode the link again, so the token must not contain characters that need encoding.
    return f"WATV2:{base64.urlsafe_b64encode(key.encode()).decode().rstrip('=')}:1$1"


def _read_token(token: str) -> str:
    try:
        text = token.split(":")[1]
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (IndexError, binascii.Error, UnicodeDecodeError):
        raise errors.invalid_query_parameter_value(QueryParameterName="$skiptoken", QueryParameterValue=token) from None


def listing(
    call: Call, kind: str, records: Mapping[str, _T], fields: odata.Fields, write: Callable[[_T], Json]
) -> Response:
    """Return a response with the requested page of a list."""
    # The service refuses page sizes outside 1 to 1000, and does not shorten them.
    size = call.query.get("maxresults", str(PAGE_SIZE))
    if not re.fullmatch("[1-9][0-9]*", size):
        reason = (
            "MaxResults cannot be less than 1" if re.fullmatch("0|-[0-9]+", size) else "The value must be an integer"
        )
        raise errors.invalid_query_parameter_value(
            QueryParameterName="maxresults", QueryParameterValue=size, Reason=reason
        )
    if len(size) > MAX_DIGITS or int(size) > PAGE_SIZE:
        raise errors.out_of_range_query_parameter_value(
            QueryParameterName="maxresults", QueryParameterValue=size, MinimumAllowed=1, MaximumAllowed=PAGE_SIZE
        )
    matches = odata.read_filter(call.query.get("$filter"), fields)
    selected = selection(call, kind)
    found, token = page(records, matches, int(size), call.query.get("$skiptoken"))
    body: Json = {"value": [selected(write(record)) for record in found]}
    if token:
        # Keep the query as received: clients encode the query of the link again.
        kept = [part for part in call.raw_query.split("&") if "skiptoken=" not in part.lower()]
        body["odata.nextLink"] = f"{call.base}{call.raw_path}?{'&'.join(kept)}&$skiptoken={token}"
    return json_answer(call, kind, body)
