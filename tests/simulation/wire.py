"""The wire below the official SDKs: each request reaches a service in this process, or fails.

A request pauses before the service handles it, and again before the client sees the response. Other fibers can run in
between, and a process can be killed before or after its request takes effect.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

import requests
from urllib3.exceptions import ProtocolError

from localbatch import batch_service
from simulation.storage import MemoryStorage, Request, Response
from simulation.world import Process, World

HTML = b"<!DOCTYPE html><html><body>Sign in to the network</body></html>"

# Statuses that clients retry.
STATUSES = (408, 429, 500, 502, 503, 504)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """The fault of one request.

    Attributes:
        kind: "status", "cut", "html", "half" (a body that is cut off), "late", "lag" (task counts of before) or "refused".
        after: Whether the request takes effect first.
        status: The status of an error response.
        seconds: Delay of the request, or of the response.
        retry_after: The header `Retry-After` in seconds.
    """

    kind: str
    after: bool = False
    status: int = 503
    seconds: float = 0.0
    retry_after: int | None = None


# Returns the fault of a client's request, if it has one.
Chooser = Callable[["Call"], Fault | None]


@dataclass(frozen=True, kw_only=True)
class Call:
    """The properties of a client's request that select its fault.

    Attributes:
        number: The number of the request in this history, from 1.
        service: "batch" or "storage".
        operation: A name such as create_pool or put_blob.
        target: The path.
    """

    number: int
    service: str
    operation: str
    target: str


@dataclass
class Wire:
    """Carries the requests of clients to the services.

    Attributes:
        choose: Returns the fault of a request, if it has one.
        on_request: Called before each request of a client; it may kill the process.
        on_response: Called before the client sees each response; it may kill the process.
        requests: Number of requests by service and operation.
    """

    world: World
    batch: batch_service.BatchService
    storage: MemoryStorage
    changed: Callable[[], None]
    now: Callable[[], datetime]
    choose: Chooser = lambda _: None
    on_request: Callable[[Call], None] = lambda _: None
    on_response: Callable[[Call], None] = lambda _: None
    count: int = 0
    requests: dict[str, int] = field(default_factory=dict)
    _latest_counts: dict[str, Response] = field(default_factory=dict)

    def client(self, process: Process) -> Callable[[Request], Response]:
        """Return a function that sends the requests of a process, with faults."""

        def send(request: Request) -> Response:
            if process.is_dead:
                self.world.pause()
            return self._send(request)

        return send

    def send(self, request: Request) -> Response:
        """Send a request without faults and return the response."""
        if request.url.startswith(self.storage.endpoint):
            return self.storage.answer(request)
        return self._answer_batch(request)

    def _send(self, request: Request) -> Response:
        self.world.pause()
        self.count += 1
        service, operation, path = self._name(request)
        call = Call(number=self.count, service=service, operation=operation, target=path)
        self.requests[f"{service} {operation}"] = self.requests.get(f"{service} {operation}", 0) + 1
        self.on_request(call)
        fault = self.choose(call)
        response = self._respond(request, call, fault)
        shown = response.status if isinstance(response, Response) else type(response).__name__
        self.world.note(f"{self.count} {service} {operation} {shown}{f' {fault.kind}' if fault else ''}")
        self.world.pause()
        self.on_response(call)
        if isinstance(response, Exception):
            raise response
        return response

    def _respond(self, request: Request, call: Call, fault: Fault | None) -> Response | Exception:
        if fault is None:
            return self._answer(request, call)
        if fault.kind == "lag":
            before = self._latest_counts.get(call.target)
            answered = self._answer(request, call)
            return before or answered
        if fault.kind == "late":
            if not fault.after:
                self.world.sleep(fault.seconds)
            answered = self._answer(request, call)
            if fault.after:
                self.world.sleep(fault.seconds)
            return answered
        answered = self._answer(request, call) if fault.after else None
        if fault.kind == "cut":
            # requests raises this error when a connection ends after the request was sent.
            ended = ProtocolError("Connection aborted.", ConnectionResetError(104, "Connection reset by peer"))
            return requests.ConnectionError(ended) if fault.after else requests.ConnectionError("Connection refused")
        if fault.kind == "html":
            return Response(200, {"content-type": "text/html", "content-length": str(len(HTML))}, HTML)
        if fault.kind == "half":
            whole = answered or Response(200, {"content-type": "application/json"}, b'{"value": [')
            return _half(whole)
        return _error(fault, call)

    def _answer(self, request: Request, call: Call) -> Response:
        response = self.send(request)
        if call.operation == "get_job_task_counts" and response.status == HTTPStatus.OK:
            self._latest_counts[call.target] = response
        return response

    def _answer_batch(self, request: Request) -> Response:
        answered = self.batch.answer(_batch_request(request), self.now())
        if request.method not in {"GET", "HEAD"}:
            self.changed()
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in answered.raw_headers}
        return Response(answered.status_code, headers, bytes(answered.body))

    def _name(self, request: Request) -> tuple[str, str, str]:
        parts = urlsplit(request.url)
        if not request.url.startswith(self.storage.endpoint):
            return "batch", _batch_request(request).operation, parts.path
        below = request.url[len(self.storage.endpoint) :].partition("?")[0].strip("/")
        query = parse_qs(parts.query)
        kind = "blob" if "/" in below else "container" if below else "account"
        detail = query.get("comp", [""])[0]
        return "storage", "_".join(filter(None, (request.method.lower(), kind, detail))), f"/{below}"


def _half(whole: Response) -> Response:
    """Truncate a body and adjust its Content-Length, as a faulty proxy does; a response without a body stays."""
    if not whole.body:
        return whole
    body = whole.body[: len(whole.body) // 2]
    headers = {name: value for name, value in whole.headers.items() if name.lower() != "content-length"}
    return Response(whole.status, {**headers, "content-length": str(len(body))}, body)


def _batch_request(request: Request) -> batch_service.Request:
    parts = urlsplit(request.url)
    return batch_service.Request(
        method=request.method,
        path=parts.path,
        query=parts.query,
        headers=request.headers,
        body=request.body,
        base=f"{parts.scheme}://{parts.netloc}",
    )


def _error(fault: Fault, call: Call) -> Response:
    status = HTTPStatus.FORBIDDEN if fault.kind == "refused" else HTTPStatus(fault.status)
    code = {429: "TooManyRequests", 503: "ServerBusy", 403: "AuthorizationFailure"}.get(status, "InternalError")
    headers = {} if fault.retry_after is None else {"retry-after": str(fault.retry_after)}
    if call.service == "batch":
        document = {"code": code, "message": {"lang": "en-US", "value": "The simulation injected this error."}}
        body = json.dumps(document).encode()
        return Response(status, {**headers, "content-type": "application/json"}, body)
    body = (
        f"<?xml version='1.0' encoding='utf-8'?><Error><Code>{code}</Code><Message>Injected.</Message></Error>".encode()
    )
    return Response(status, {**headers, "content-type": "application/xml", "x-ms-error-code": code}, body)


def secrets_in(text: str, known: Mapping[str, str]) -> list[str]:
    """List the secrets in a text: signatures, and the names of known keys."""
    found = [f"a signature ({match})" for match in re.findall(r"sig=[A-Za-z0-9%+/]{8}", text)]
    return found + [name for name, value in known.items() if value in text]
