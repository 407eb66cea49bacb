"""The HTTP transport of both Azure clients: it rejects invalid and slow answers, so that they are retried.

A proxy, a sign-in page of a network or a faulty load balancer can answer in place of the service, with any status. The
SDKs would fail on such a body outside of their retries, or read it as an empty list. Here it becomes an error of the
connection, like a lost response.
"""

from __future__ import annotations

import http.client
import io
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, BinaryIO
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

from azure.core.exceptions import ServiceResponseError
from azure.core.pipeline.transport import RequestsTransport
from requests import PreparedRequest, Session
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from tasks.clock import learn_service_time, read_http_date
from tasks.environment import bypass_proxies_on_loopback, check_certificate_variables

CONNECTION_TIMEOUT_SECONDS = 10
READ_TIMEOUT_SECONDS = 60

# More than the threads of a flow. The SDK's default transport pools only ten connections and discards the others.
MAX_CONNECTIONS = 32

# An answer that delivers less than this while the client waits for its body is given up.
MIN_BYTES_PER_SECOND = 100_000
SLOW_SECONDS = 30.0
TOO_SLOW = f"slower than {MIN_BYTES_PER_SECOND // 1000} kB/s for {SLOW_SECONDS:.0f} s"

BLOCK_BYTES = 64 * 1024

# Sources: `RetryPolicyBase` in azure-core; https://learn.microsoft.com/azure/batch/error-handling
TRANSIENT_STATUS_CODES = frozenset({408, 429, 500, 502, 503, 504})

# Collections of the Batch REST API. Their paths have an odd number of segments.
BATCH_COLLECTIONS = frozenset({"jobs", "pools", "nodes", "tasks", "supportedimages"})


@dataclass(frozen=True)
class Answer:
    """What an answer is checked by.

    Attributes:
        path: The path of the request, in segments.
        headers: The headers of the answer, which ignore case.
        body: The body; None if it is streamed.
    """

    method: str
    path: tuple[str, ...]
    query: str
    status: int
    headers: Mapping[str, str]
    body: bytes | None


class InvalidAnswerError(ServiceResponseError):
    """An answer that does not come from the service, or not as a whole."""


class CheckedTransport(RequestsTransport):  # type: ignore[misc]  # the package hides its type
    """A transport that raises `InvalidAnswerError` unless `is_valid` accepts an answer.

    It also compares the clock of this machine with the dates of valid answers. It uses the proxies and certificates of
    the environment, but no password of `~/.netrc`.
    """

    def __init__(self, service: str, is_valid: Callable[[Answer], bool]) -> None:
        check_certificate_variables()
        bypass_proxies_on_loopback()
        session = Session()
        # Without an `auth`, requests replaces the header `Authorization` if `~/.netrc` has an entry for the host.
        session.auth = _keep_authorization
        for scheme in ("https://", "http://"):
            session.mount(scheme, _Adapter(pool_maxsize=MAX_CONNECTIONS))
        super().__init__(
            session=session,
            connection_timeout=CONNECTION_TIMEOUT_SECONDS,
            read_timeout=READ_TIMEOUT_SECONDS,
            connection_data_block_size=BLOCK_BYTES,
        )
        self._service = service
        self._is_valid = is_valid

    def send(self, request: Any, **options: Any) -> Any:
        """Send a request and return the answer.

        Raises:
            InvalidAnswerError: The answer is not valid.
        """
        is_streamed = options.get("stream", False)
        response: Any = super().send(request, **options)
        parts = urlsplit(request.url)
        answer = Answer(
            method=request.method,
            path=tuple(parts.path.strip("/").split("/")),
            query=parts.query,
            status=response.status_code,
            headers=response.headers,
            body=None if is_streamed else response.internal_response.content,
        )
        # A proxy may also answer with one of these statuses, but they are retried in any case.
        if answer.status not in TRANSIENT_STATUS_CODES and not self._is_valid(answer):
            response.internal_response.close()
            raise InvalidAnswerError(f"HTTP {answer.status} with a body that is not from the service")
        if date := read_http_date(answer.headers.get("date")):
            learn_service_time(self._service, date)
        return response


def _keep_authorization(request: PreparedRequest) -> PreparedRequest:
    return request


def is_batch_answer(answer: Answer) -> bool:
    """Check whether an answer can be from the Batch service."""
    if answer.body is None:
        # The content of a file on a node. The body of an error is streamed, too.
        if answer.status >= HTTPStatus.BAD_REQUEST:
            return "json" in answer.headers.get("content-type", "")
        return "ocp-batch-file-isdirectory" in answer.headers
    if answer.method == "HEAD":
        return True
    is_addition = answer.path[-1] == "addtaskcollection"
    if answer.status < HTTPStatus.BAD_REQUEST and not answer.body:
        return answer.status < HTTPStatus.MULTIPLE_CHOICES and answer.method != "GET" and not is_addition
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        return False
    if not isinstance(document, dict):
        return False
    if answer.status >= HTTPStatus.MULTIPLE_CHOICES:
        return isinstance(document.get("code"), str)
    if is_addition or (answer.method == "GET" and len(answer.path) % 2 and answer.path[-1] in BATCH_COLLECTIONS):
        items = document.get("value")
        return isinstance(items, list) and all(isinstance(item, dict) for item in items)
    return True


def is_storage_answer(answer: Answer) -> bool:
    """Check whether an answer can be from Blob Storage."""
    headers = answer.headers
    # Azurite leaves it out of the answer to the only POST request, which has a body to check.
    if "x-ms-request-id" not in headers and answer.method != "POST":
        return False
    if answer.status >= HTTPStatus.MULTIPLE_CHOICES:
        return "x-ms-error-code" in headers or "www-authenticate" in headers
    if answer.method in {"PUT", "DELETE"}:
        return not answer.body
    if "comp=" not in answer.query:
        return "etag" in headers and not answer.body and _has_whole_range(answer)
    try:
        root = ET.fromstring(answer.body or b"")  # noqa: S314 - the SDK parses it with the same parser
    except ET.ParseError:
        return False
    return root.tag in {"EnumerationResults", "UserDelegationKey"}


def _has_whole_range(answer: Answer) -> bool:
    """Check whether the length of a part of a blob is the length of its range."""
    found = re.fullmatch(r"bytes (\d+)-(\d+)/\d+", answer.headers.get("content-range", ""))
    length = answer.headers.get("content-length")
    return found is None or length in {None, str(int(found[2]) - int(found[1]) + 1)}


class _MinimumSpeed(io.RawIOBase):
    """The body of an answer, read from a socket; a read fails if the body is slow.

    Only the time in which the client waits for data is counted, from the first byte of the body on. Each time that it adds
    up to SLOW_SECONDS, that many seconds' worth of MIN_BYTES_PER_SECOND must have arrived. So a body that is complete
    within that time may be slow, and neither the wait for the first byte nor a slow reader counts.
    """

    def __init__(self, source: Any, connection: Any) -> None:
        self._source: BinaryIO = source
        self._connection = connection
        self._is_started = False
        self._waited_seconds = 0.0
        self._received_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._is_started:
            self._connection.settimeout(max(SLOW_SECONDS - self._waited_seconds, 1e-3))
        started = time.monotonic()
        try:
            block: bytes = self._source.read1(len(buffer))  # type: ignore[attr-defined]  # a buffered reader
        except TimeoutError:
            if self._is_started:
                raise ConnectionError(TOO_SLOW) from None
            raise
        if self._is_started:
            self._waited_seconds += time.monotonic() - started
        self._is_started = True
        self._received_bytes += len(block)
        if self._waited_seconds >= SLOW_SECONDS:
            if block and self._received_bytes < MIN_BYTES_PER_SECOND * SLOW_SECONDS:
                raise ConnectionError(TOO_SLOW)
            self._waited_seconds, self._received_bytes = 0.0, 0
        buffer[: len(block)] = block
        return len(block)

    def close(self) -> None:
        self._source.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: Any, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self._socket = sock

    def begin(self) -> None:
        is_new = self.headers is None
        super().begin()
        fp: Any = self.fp
        if is_new and fp is not None:
            self.fp = io.BufferedReader(_MinimumSpeed(fp, self._socket), BLOCK_BYTES)


class _HttpConnection(HTTPConnection):
    response_class = _Response


class _HttpsConnection(HTTPSConnection):
    response_class = _Response


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _HttpConnection


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection


class _Adapter(HTTPAdapter):
    """An adapter whose connections end slow answers."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(*args, **options)
        manager.pool_classes_by_scheme = _POOLS
        return manager


_POOLS = {"http": _HttpPool, "https": _HttpsPool}
