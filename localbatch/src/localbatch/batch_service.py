"""A Batch account without threads, sockets or processes: it answers requests, and decides what nodes do.

`localbatch.local_batch` serves one over HTTP and performs its decisions. The simulation tests have another transport,
another clock and other nodes, and call `answer` and `tick` themselves.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from urllib.parse import parse_qsl

from starlette.responses import JSONResponse, Response

from localbatch import errors
from localbatch.account.records import Action, Node, Report
from localbatch.account.store import Store
from localbatch.api import auth
from localbatch.api.requests import Call
from localbatch.api.responses import JSON_TYPE
from localbatch.api.routes import ROUTES, Match, call_handler, match_route
from localbatch.api.tokens import check_token
from localbatch.faults.definitions import Fault, code_of, message_of
from localbatch.faults.script import Faults
from localbatch.options import DEVELOPMENT_ACCOUNT
from localbatch.rules.agenda import Pace
from localbatch.rules.scheduler import Scheduler
from localbatch.wire import http_date

logger = logging.getLogger(__name__)

# Requests of any version since this year are accepted: the operations served here have not changed since.
MIN_API_YEAR = "2022"


@dataclass(frozen=True, kw_only=True)
class Request:
    """One HTTP request.

    Attributes:
        path: Percent-encoded, as received.
        query: Percent-encoded, as received.
        headers: By names in lower case.
        base: The URL by which the client knows the account.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    base: str
    body: bytes = b""

    @cached_property
    def match(self) -> Match:
        """The route of the request and the parameters in its path.

        Raises:
            ServiceError: InvalidUri or UnsupportedHttpVerb.
        """
        return match_route(self.method, self.path)

    @property
    def operation(self) -> str:
        """The name of the operation, empty if there is no such operation."""
        try:
            return self.match.route.operation
        except errors.ServiceError:
            return ""


class BatchService:
    """One Batch account.

    Attributes:
        name: The name of the account.
        key: Its key, in Base64.
        store: Its records. Other threads must hold `store.lock` to read them.
        scheduler: The rules about them.
        faults: The fault script.
    """

    def __init__(
        self,
        store: Store,
        pace: Pace,
        *,
        root_of: Callable[[Node], Path],
        key: str,
        name: str = DEVELOPMENT_ACCOUNT,
        oauth: bool = False,
        tenant: str | None = None,
        faults: Faults | None = None,
        accepts_machine_time: bool = True,
    ) -> None:
        """Create an account.

        Args:
            store: Its records.
            pace: The durations of transitional states.
            root_of: Returns the root folder of a node.
            key: The key of the account, in Base64.
            name: Its name.
            oauth: Whether bearer tokens are accepted too. Their signatures are not checked.
            tenant: The id of the only tenant whose tokens are accepted.
            faults: The fault script; by default an empty one.
            accepts_machine_time: Whether requests may also be dated by the clock of this machine.
        """
        self.name = name
        self.key = key
        self.store = store
        self.scheduler = Scheduler(store, pace)
        self.faults = faults or new_faults()
        self._root_of = root_of
        self._oauth = oauth
        self._accepts_machine_time = accepts_machine_time
        self._tenant = tenant

    def tick(self, now: datetime) -> tuple[Sequence[Action], datetime | None]:
        """Do everything that is due.

        Returns:
            The actions for the nodes, and when the next tick is due if nothing else happens.
        """
        with self.store.lock:
            # Faults come first: they must see that a Batch task is running before its report completes it.
            self.faults.apply(self.store, self.scheduler, now)
            return self.scheduler.tick(now)

    def receive(self, report: Report) -> None:
        """Queue the report of a run for the next tick. No lock is needed."""
        self.store.reports.append(report)

    def answer(
        self, request: Request, now: datetime, fault: Fault | None = None, *, refusal: errors.ServiceError | None = None
    ) -> Response:
        """Return the response to a request, errors included.

        Args:
            request: The request.
            now: The current time of the service.
            fault: The fault that the request meets.
            refusal: The error of a body that could not be read.
        """
        try:
            if fault and fault.fault == "answer":
                raise errors.ServiceError(fault.status, code_of(fault), message_of(fault), {})  # noqa: TRY301
            has_key = self._authenticate(request, now)
            route, parameters = request.match
            query = {name.lower(): value for name, value in parse_qsl(request.query)}
            _check_version(query.get("api-version"))
            if refusal:
                raise refusal  # noqa: TRY301
            response = call_handler(route, self._call(request, parameters, query, now, has_key=has_key))
        except errors.ServiceError as error:
            response = _error_response(error, request, now)
        except Exception:  # One request must not end the service.
            logger.exception("request failed: %s %s", request.method, request.path)
            response = _error_response(errors.internal_error(), request, now)
        # The headers of all responses.
        response.headers.update(
            {
                "request-id": str(uuid.uuid4()),
                "DataServiceVersion": "3.0",
                "Server": "Microsoft-HTTPAPI/2.0",
                "Strict-Transport-Security": "max-age=31536000; includeSubDomains",
                "X-Content-Type-Options": "nosniff",
                "Date": http_date(now),
            }
        )
        headers = request.headers
        if headers.get("return-client-request-id", "").lower() == "true" and "client-request-id" in headers:
            response.headers["client-request-id"] = headers["client-request-id"]
        if fault and fault.retry_after is not None:
            response.headers["Retry-After"] = str(fault.retry_after)
        return response

    def _call(
        self,
        request: Request,
        parameters: Mapping[str, str],
        query: Mapping[str, str],
        now: datetime,
        *,
        has_key: bool,
    ) -> Call:
        return Call(
            store=self.store,
            scheduler=self.scheduler,
            root_of=self._root_of,
            method=request.method,
            parameters=parameters,
            query=query,
            headers=request.headers,
            has_key=has_key,
            body=request.body,
            base=request.base,
            raw_path=request.path,
            raw_query=request.query,
            now=now,
        )

    def _authenticate(self, request: Request, now: datetime) -> bool:
        """Check the signature or the token of a request, and return whether it is a signature."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme == "Bearer" and self._oauth:
            check_token(token, self._tenant, now)
            return False
        auth.verify(
            self.name,
            self.key,
            method=request.method,
            path=request.path,
            query=request.query,
            headers=request.headers,
            # A client may use the clock of the machine, even if the clock of the service was moved.
            clocks=(now, datetime.now(timezone.utc)) if self._accepts_machine_time else (now,),
        )
        return True


def new_faults() -> Faults:
    """Return an empty fault script for a Batch account."""
    return Faults([route.operation for route in ROUTES])


def _error_response(error: errors.ServiceError, request: Request, now: datetime) -> Response:
    # Neither a response to HEAD nor 304 Not Modified has a body.
    if request.method == "HEAD" or error.status == 304:  # noqa: PLR2004
        return Response(status_code=error.status)
    return JSONResponse(error.document(request.base, now), error.status, media_type=JSON_TYPE)


def _check_version(version: str | None) -> None:
    """Check the version of the REST API, such as 2025-06-01."""
    if not version:
        raise errors.missing_required_query_parameter(QueryParameterName="api-version")
    if not version[:4].isdigit() or version < MIN_API_YEAR:
        raise errors.unsupported_request_version(QueryParameterName="api-version", QueryParameterValue=version)
