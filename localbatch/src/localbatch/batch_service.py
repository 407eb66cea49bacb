"""A Batch account without threads, sockets or processes: it answers requests, and decides what nodes do.

`localbatch.local_batch` serves one over HTTP and performs its decisions. Whoever has another transport, another clock or other
nodes calls `answer` and `tick` themselves.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import parse_qsl

from starlette.responses import JSONResponse, Response

from localbatch import errors
from localbatch.account.records import Action, Node, Report
from localbatch.account.store import Store
from localbatch.api import auth
from localbatch.api.responses import JSON_TYPE
from localbatch.api.routes import ROUTES, Call, Service, match_route, serve
from localbatch.api.tokens import check_token
from localbatch.faults.definitions import Fault, code_of, message_of
from localbatch.faults.script import Faults
from localbatch.options import DEVELOPMENT_ACCOUNT, DEVELOPMENT_KEY
from localbatch.rules.agenda import Pace
from localbatch.rules.scheduler import Scheduler
from localbatch.wire import http_date

logger = logging.getLogger(__name__)

OLDEST_API_YEAR = "2022"


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request, as it stands on the wire.

    Attributes:
        path: Still encoded.
        query: Still encoded.
        headers: By names in lower case.
        body: Or why it is refused.
        base: The URL by which the client knows the account.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes | errors.ServiceError
    base: str


class BatchService:
    """One Batch account.

    Attributes:
        name: Its name.
        key: Its key, in Base64.
        store: Its records; whoever reads them from another thread holds their lock.
        scheduler: Its decisions about them.
        faults: What is made to go wrong on demand.
    """

    def __init__(
        self,
        store: Store,
        pace: Pace,
        *,
        root_of: Callable[[Node], Path],
        name: str = DEVELOPMENT_ACCOUNT,
        key: str = DEVELOPMENT_KEY,
        oauth: bool = False,
        tenant: str | None = None,
        faults: Faults | None = None,
    ) -> None:
        """Create an account.

        Args:
            store: Its records.
            pace: How long transitional states last.
            root_of: Where a node has its files.
            name: Its name.
            key: Its key, in Base64.
            oauth: Whether bearer tokens are accepted, too, whoever signed them.
            tenant: The id of the one tenant whose tokens are accepted.
            faults: The script of faults; one of its own unless given.
        """
        self.name = name
        self.key = key
        self.store = store
        self.scheduler = Scheduler(store, pace)
        self.faults = faults or new_faults()
        self._root_of = root_of
        self._oauth = oauth
        self._tenant = tenant

    def tick(self, now: datetime) -> tuple[Sequence[Action], datetime | None]:
        """Let everything happen that is due.

        Returns:
            What nodes do now, and when the next tick is due if nothing else happens.
        """
        with self.store.lock:
            # First, so that a Batch task that has begun to run is seen before it is seen to have ended.
            self.faults.apply(self.store, self.scheduler, now)
            return self.scheduler.tick(now)

    def receive(self, report: Report) -> None:
        """Record what became of a run; the next tick settles it."""
        self.store.reports.append(report)

    def answer(self, request: Request, now: datetime, fault: Fault | None = None) -> Response:
        """Do what a request asks for.

        Args:
            request: The request.
            now: The instant, by the service's clock.
            fault: What is made to go wrong with it.

        Returns:
            The response to it, errors included.
        """
        headers, method = request.headers, request.method
        try:
            _refuse(fault)
            self._authenticate(request, now)
            route, parameters = match_route(method, request.path)
            options = {name.lower(): value for name, value in parse_qsl(request.query)}
            call = Call(
                service=Service(store=self.store, scheduler=self.scheduler, root_of=self._root_of),
                method=method,
                parameters=parameters,
                query=options,
                headers=headers,
                body=_checked(options.get("api-version"), request.body),
                base=request.base,
                raw_path=request.path,
                raw_query=request.query,
                now=now,
            )
            response = serve(route, call)
        except errors.ServiceError as error:
            response = _error_response(error, request.base, now, with_body=method != "HEAD")
        except Exception:  # One request must not end the service.
            logger.exception("request failed: %s %s", method, request.path)
            response = _error_response(errors.internal_error(), request.base, now, with_body=method != "HEAD")
        response.headers.update(
            {
                "request-id": str(uuid.uuid4()),
                "DataServiceVersion": "3.0",
                "Server": "Microsoft-HTTPAPI/2.0",
                "Date": http_date(now),
            }
        )
        if headers.get("return-client-request-id", "").lower() == "true" and "client-request-id" in headers:
            response.headers["client-request-id"] = headers["client-request-id"]
        if fault and fault.retry_after is not None:
            response.headers["Retry-After"] = str(fault.retry_after)
        return response

    def _authenticate(self, request: Request, now: datetime) -> None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme == "Bearer" and self._oauth:
            check_token(token, self._tenant, now)
            return
        auth.verify(
            self.name,
            self.key,
            method=request.method,
            path=request.path,
            query=request.query,
            headers=request.headers,
            # Clients date their requests by the machine's clock, wherever the service's own was moved.
            now=datetime.now(timezone.utc),
        )


def new_faults() -> Faults:
    """Return an empty script for a Batch account."""
    return Faults([route.operation for route in ROUTES])


def operation_of(method: str, path: str) -> str:
    """Return the name of the operation that a request asks for, or an empty one."""
    try:
        return match_route(method, path)[0].operation
    except errors.ServiceError:
        return ""


def _refuse(fault: Fault | None) -> None:
    if fault and fault.fault == "answer":
        raise errors.ServiceError(fault.status, code_of(fault), message_of(fault), {})


def _error_response(error: errors.ServiceError, base: str, now: datetime, *, with_body: bool) -> Response:
    if not with_body or error.status == 304:  # noqa: PLR2004 - Not Modified has no body.
        return Response(status_code=error.status)
    return JSONResponse(error.document(base, now), error.status, media_type=JSON_TYPE)


def _checked(version: str | None, body: bytes | errors.ServiceError) -> bytes:
    """Return the body of a request of any version since 2022: what is served has not changed since."""
    if not version:
        raise errors.missing_required_query_parameter(QueryParameterName="api-version")
    if not version[:4].isdigit() or version < OLDEST_API_YEAR:
        raise errors.unsupported_request_version(QueryParameterName="api-version", QueryParameterValue=version)
    if isinstance(body, errors.ServiceError):
        raise body
    return body
