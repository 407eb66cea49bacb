"""An in-memory Blob Storage account that answers HTTP requests, and an adapter that puts it below the Azure SDK.

The account behaves as Azurite does, as far as the flow and the nodes use it; `test_storage_contract.py` runs the same
tests against both. It has no threads, never waits, and gives the same answers to the same requests at the same times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict
from urllib3 import HTTPHeaderDict, HTTPResponse


@dataclass(frozen=True)
class Request:
    """An HTTP request as a server receives it. The names of the headers are in lower case."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Response:
    """An HTTP response as a server sends it."""

    status: int
    headers: dict[str, str]
    body: bytes


class InProcessAdapter(BaseAdapter):
    """Sends the requests of a `requests.Session` to a function instead of a network connection.

    What the function raises reaches the caller, so a connection fault is one of `requests.exceptions`. A body that is
    shorter than the Content-Length of its response fails while it is read, as a cut connection does.
    """

    def __init__(self, handler: Callable[[Request], Response]) -> None:
        super().__init__()
        self._handler = handler

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        """Return the handler's response to `request`."""
        url, method = request.url or "", request.method or "GET"
        headers = {"host": urlsplit(url).netloc}
        headers |= {name.lower(): _text(value) for name, value in request.headers.items()}
        answer = self._handler(Request(method, url, headers, _content(request.body)))
        names = HTTPHeaderDict(answer.headers)
        response = requests.Response()
        response.status_code = answer.status
        response.reason = HTTPStatus(answer.status).phrase
        response.headers = CaseInsensitiveDict(names)
        response.url = url
        response.request = request
        response.raw = HTTPResponse(
            BytesIO(b"" if method == "HEAD" else answer.body),
            names,
            answer.status,
            reason=response.reason,
            preload_content=False,
            decode_content=False,
            request_method=method,
        )
        return response

    def close(self) -> None:
        """Do nothing: there are no connections."""


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _content(body: Any) -> bytes:
    """Read the body of a prepared request, which is text, bytes, a file or an iterable of bytes."""
    if body is None:
        return b""
    if isinstance(body, (bytes, bytearray)):
        return bytes(body)
    if isinstance(body, str):
        return body.encode()
    read = getattr(body, "read", None)
    if read is not None:
        return bytes(read())
    chunks: Iterable[bytes] = body
    return b"".join(chunks)
