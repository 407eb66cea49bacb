"""Wires it all: the HTTP server, the loop that ticks, and Azurite beside them. Nothing else knows of threads."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import fcntl
import logging
import shutil
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING
from urllib.parse import parse_qsl

import uvicorn
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from localbatch import DEVELOPMENT_ACCOUNT, DEVELOPMENT_KEY, auth, errors
from localbatch.azurite import STORAGE_ACCOUNT, STORAGE_KEY, Azurite, listen
from localbatch.models import Report
from localbatch.node import NodeAgent
from localbatch.reaper import Reaper
from localbatch.routes import JSON_TYPE, MAX_BODY_BYTES, Call, Service, match_route, serve
from localbatch.scheduler import PACES, Scheduler
from localbatch.store import Store

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)

REQUESTS_KEPT = 10_000
OLDEST_API_YEAR = "2022"
KEEP_ALIVE_SECONDS = 120
"""Longer than clients pause between two requests: a connection that closes under a POST is an error they see."""

MARKER = "AZ_BATCH_NODE_ROOT_DIR"
"""The variable by which the reaper knows a process of ours."""


@dataclass(frozen=True, kw_only=True)
class RequestRecord:
    """One request that was answered."""

    operation: str
    method: str
    path: str
    status: int
    started_at: datetime
    ended_at: datetime
    bytes: int
    """Of the answer's body."""

    def __str__(self) -> str:
        milliseconds = (self.ended_at - self.started_at).total_seconds() * 1000
        return f"{self.status} {self.operation} {self.method} {self.path} {self.bytes} bytes {milliseconds:.1f} ms"


class _Clock:
    """UTC that never goes back, but goes on with the machine's clock after a suspension."""

    def __init__(self) -> None:
        self._latest = datetime.now(timezone.utc)

    def now(self) -> datetime:
        self._latest = max(self._latest, datetime.now(timezone.utc))
        return self._latest


class LocalBatch:
    """A Batch account on 127.0.0.1; a context manager.

    Attributes:
        endpoint: The account's URL.
        account: Its name.
        key: Its key.
        requests: The latest requests, oldest first.
    """

    def __init__(
        self,
        *,
        state_dir: Path | str | None = None,
        pace: str = "fast",
        port: int = 0,
        pool_quota: int = 100,
        job_quota: int = 300,
        on_request: Callable[[RequestRecord], None] | None = None,
        reaper: Reaper | None = None,
    ) -> None:
        """Start nothing yet.

        Args:
            state_dir: Where the nodes have their files, until the end; a temporary directory unless given.
            pace: How long transitional states last: instant, fast or real.
            port: The port to listen on, if it is free; 0 for any.
            pool_quota: How many pools may exist.
            job_quota: How many jobs that are not completed may exist.
            on_request: Is called after each request.
            reaper: Who ends the processes if this one dies; one of its own unless given.
        """
        self.account = DEVELOPMENT_ACCOUNT
        self.key = DEVELOPMENT_KEY
        self.endpoint = ""
        self.requests: collections.deque[RequestRecord] = collections.deque(maxlen=REQUESTS_KEPT)
        self._state_dir = state_dir
        self._port = port
        self._on_request = on_request
        self._reaper = reaper
        self._clock = _Clock()
        self._store = Store(pool_quota=pool_quota, job_quota=job_quota)
        self._scheduler = Scheduler(self._store, PACES[pace])
        self._wake = threading.Event()
        self._is_stopping = False
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Listen, and begin to tick."""
        with contextlib.ExitStack() as stack:
            state_dir = self._state_dir or stack.enter_context(tempfile.TemporaryDirectory(prefix="localbatch-"))
            nodes = Path(state_dir).resolve() / "nodes"
            shutil.rmtree(nodes, ignore_errors=True)  # Of a server that was killed.
            nodes.mkdir(parents=True)
            for folder in (nodes, nodes.with_name("nodes-trash")):
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
            reaper = self._reaper
            if not reaper:
                reaper = Reaper(f"{MARKER}={nodes}/")
                stack.callback(reaper.close)
            listener = stack.enter_context(listen(self._port))
            self.endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
            self._agent = NodeAgent(nodes, account=(self.account, self.endpoint), reaper=reaper, report=self._receive)
            stack.callback(self._agent.stop)
            config = uvicorn.Config(
                self._app,
                interface="asgi3",
                http="h11",
                ws="none",
                loop="asyncio",
                lifespan="off",
                proxy_headers=False,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=2,
            )
            server = uvicorn.Server(config)
            ticking = threading.Thread(target=self._tick_until_stopped, name="localbatch-tick", daemon=True)
            serving = threading.Thread(
                target=lambda: asyncio.run(server.serve([listener])), name="localbatch-http", daemon=True
            )
            ticking.start()
            stack.callback(self._stop_ticking, ticking)
            serving.start()
            stack.callback(_stop_serving, server, serving)
            self._closing = stack.pop_all()

    def stop(self) -> None:
        """Kill what runs, close the port, remove the nodes' files; return when nothing is left."""
        self._closing.close()

    def _stop_ticking(self, thread: threading.Thread) -> None:
        self._is_stopping = True
        self._wake.set()
        thread.join()

    def _receive(self, report: Report) -> None:
        self._store.reports.append(report)
        self._wake.set()

    def _tick_until_stopped(self) -> None:
        while not self._is_stopping:
            self._wake.clear()
            wake_at = None
            try:
                with self._store.lock:
                    actions, wake_at = self._scheduler.tick(self._clock.now())
                self._agent.perform(actions)
            except Exception:  # The account goes on: a client that sees nothing happen finds the reason in the log.
                logger.exception("tick failed")
            self._wake.wait((wake_at - self._clock.now()).total_seconds() if wake_at else None)

    # One request.

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        started_at = self._clock.now()
        body = await _read_body(receive)
        operation, response = self._answer(scope, body, started_at)
        sent = 0

        async def count(message: Message) -> None:
            nonlocal sent
            sent += len(message.get("body", b""))
            await send(message)

        await response(scope, receive, count)
        record = RequestRecord(
            operation=operation,
            method=scope["method"],
            path=scope["raw_path"].decode(),
            status=response.status_code,
            started_at=started_at,
            ended_at=self._clock.now(),
            bytes=sent,
        )
        self.requests.append(record)
        if self._on_request:
            self._on_request(record)

    def _answer(self, scope: Scope, body: bytes | None, now: datetime) -> tuple[str, Response]:
        """Return the operation that a request asked for, and the answer to it."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        method, path, query = scope["method"], scope["raw_path"].decode(), scope["query_string"].decode()
        base = f"{scope['scheme']}://{headers.get('host', self.endpoint.partition('//')[2])}"
        operation = ""
        try:
            auth.verify(self.account, self.key, method=method, path=path, query=query, headers=headers, now=now)
            route, parameters = match_route(method, path)
            operation = route.operation
            options = {name.lower(): value for name, value in parse_qsl(query)}
            _check(options.get("api-version"), body)
            call = Call(
                service=Service(store=self._store, scheduler=self._scheduler, root_of=self._agent.root_of),
                method=method,
                parameters=parameters,
                query=options,
                headers=headers,
                body=body or b"",
                base=base,
                raw_path=path,
                raw_query=query,
                now=now,
            )
            response = serve(route, call)
        except errors.ServiceError as error:
            response = _error_response(error, base, now, with_body=method != "HEAD")
        except Exception:  # One request must not end the service.
            logger.exception("request failed: %s %s", method, path)
            response = _error_response(errors.internal_error(), base, now, with_body=method != "HEAD")
        if method not in {"GET", "HEAD"}:
            self._wake.set()
        response.headers.update(
            {"request-id": str(uuid.uuid4()), "DataServiceVersion": "3.0", "Server": "Microsoft-HTTPAPI/2.0"}
        )
        if headers.get("return-client-request-id", "").lower() == "true" and "client-request-id" in headers:
            response.headers["client-request-id"] = headers["client-request-id"]
        return operation, response


def _stop_serving(server: uvicorn.Server, thread: threading.Thread) -> None:
    server.should_exit = True
    thread.join()


def _error_response(error: errors.ServiceError, base: str, now: datetime, *, with_body: bool) -> Response:
    if not with_body or error.status == 304:  # noqa: PLR2004 - Not Modified has no body.
        return Response(status_code=error.status)
    kind = f"{base}/$metadata#Microsoft.Azure.Batch.Protocol.Entities.Container.errors/@Element"
    return JSONResponse({"odata.metadata": kind} | error.body(now), error.status, media_type=JSON_TYPE)


async def _read_body(receive: Receive) -> bytes | None:
    """Return the body of a request, or None if it is too large; it is read all the same, so that the client listens."""
    parts, size, is_more = [], 0, True
    while is_more:
        message = await receive()
        part = message.get("body", b"")
        size += len(part)
        if size <= MAX_BODY_BYTES:
            parts.append(part)
        is_more = message.get("more_body", False)
    return b"".join(parts) if size <= MAX_BODY_BYTES else None


def _check(version: str | None, body: bytes | None) -> None:
    """Accept every version since 2022: what is served has not changed since."""
    if not version:
        raise errors.missing_required_query_parameter(QueryParameterName="api-version")
    if not version[:4].isdigit() or version < OLDEST_API_YEAR:
        raise errors.unsupported_request_version(QueryParameterName="api-version", QueryParameterValue=version)
    if body is None:
        raise errors.request_body_too_large(MaxLimit=MAX_BODY_BYTES)


# With storage.


class LocalAzure:
    """A Batch account and a storage account on 127.0.0.1; a context manager.

    Attributes:
        batch: The Batch account.
        endpoint, account, key: Of the Batch account.
        storage_endpoint, storage_account, storage_key: Of the storage account.
    """

    def __init__(
        self,
        *,
        state_dir: Path | str | None = None,
        pace: str = "fast",
        port: int = 0,
        storage_port: int = 0,
        on_request: Callable[[RequestRecord], None] | None = None,
    ) -> None:
        """Start nothing yet.

        Args:
            state_dir: Where blobs are kept, and nodes until the end; if another local Azure is at work there, the
                first free directory beside it is taken. A temporary directory unless given.
            pace: How long transitional states last: instant, fast or real.
            port: The port of the Batch account, if it is free; 0 for any.
            storage_port: The port of the storage account, if it is free; 0 for any.
            on_request: Is called after each request to the Batch account.
        """
        self._state_dir = state_dir
        self._storage_port = storage_port
        self._pace = pace
        self._port = port
        self._on_request = on_request
        self._closing = contextlib.ExitStack()
        self.storage_account = STORAGE_ACCOUNT
        self.storage_key = STORAGE_KEY

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start both, beside each other, and return when both answer.

        Raises:
            AzuriteError: Azurite did not start, or is not installed.
        """
        with contextlib.ExitStack() as stack:
            if self._state_dir:
                state_dir, lock = claim_directory(Path(self._state_dir).resolve())
                stack.enter_context(lock)
            else:
                state_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="localbatch-"))).resolve()
            reaper = Reaper(f"{MARKER}={state_dir}/")
            stack.callback(reaper.close)
            azurite = Azurite(
                state_dir / "blob", port=self._storage_port, reaper=reaper, marker=f"{MARKER}={state_dir}/blob"
            )
            stack.callback(azurite.stop)
            azurite.launch()
            self.batch = LocalBatch(
                state_dir=state_dir, pace=self._pace, port=self._port, on_request=self._on_request, reaper=reaper
            )
            stack.enter_context(self.batch)
            azurite.wait_until_ready()
            self.endpoint, self.account, self.key = self.batch.endpoint, self.batch.account, self.batch.key
            self.storage_endpoint = azurite.endpoint
            self._closing = stack.pop_all()

    def stop(self) -> None:
        """Stop both; return when nothing is left."""
        self._closing.close()

    @property
    def environment(self) -> dict[str, str]:
        """The variables that lead a client here."""
        return {
            "TOPN_BATCH_ENDPOINT": self.endpoint,
            "TOPN_BATCH_ACCOUNT": self.account,
            "TOPN_BATCH_KEY": self.key,
            "TOPN_STORAGE_ENDPOINT": self.storage_endpoint,
            "TOPN_STORAGE_ACCOUNT": self.storage_account,
            "TOPN_STORAGE_KEY": self.storage_key,
        }


def claim_directory(wanted: Path) -> tuple[Path, IO[str]]:
    """Return the wanted directory, or the first free one beside it, and the lock that holds it until it is closed."""
    for number in range(1, sys.maxsize):
        directory = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        return directory, lock
    raise AssertionError  # Some number is free.
