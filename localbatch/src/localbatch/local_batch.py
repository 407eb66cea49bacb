"""The Batch account as a server: wires HTTP, the loop that ticks, the runner and the faults."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import logging
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Protocol, TypedDict

import uvicorn
from starlette.types import Message, Receive, Scope, Send

from localbatch import errors
from localbatch.account.records import Action, Node, Report
from localbatch.account.store import Store
from localbatch.api.tokens import STORAGE_AUDIENCE, issue_token
from localbatch.batch_service import BatchService, Request, operation_of
from localbatch.clock import Clock
from localbatch.faults.endpoint import serve_faults
from localbatch.faults.script import Faults, meet
from localbatch.http_protocol import BatchProtocol, drop, read_body
from localbatch.nodes.agent import NodeAgent
from localbatch.nodes.simulated import SimulatedOutput, SimulatedRunner
from localbatch.nodes.transfer import StorageClient
from localbatch.options import DEVELOPMENT_KEY
from localbatch.processes.certificate import Certificate
from localbatch.processes.launcher import Launcher
from localbatch.processes.running import Running
from localbatch.processes.sockets import abort_connections, listen
from localbatch.rules.agenda import PACES, Pace

logger = logging.getLogger(__name__)

REQUESTS_KEPT = 10_000
KEEP_ALIVE_SECONDS = 120
"""Longer than clients pause between two requests: a connection that closes under a POST is an error they see."""

RUNNERS = ("processes", "simulated")
"""Who runs tasks: real processes, or nobody, so that they only take time."""

NODES = "nodes"
"""The directory of the nodes, below that of the account."""


@dataclass(frozen=True, kw_only=True)
class RequestRecord:
    """One request that was answered."""

    operation: str
    method: str
    path: str
    status: int
    """0 if the connection was closed without an answer."""
    started_at: datetime
    ended_at: datetime
    bytes: int
    """Of the answer's body."""

    def __str__(self) -> str:
        milliseconds = (self.ended_at - self.started_at).total_seconds() * 1000
        return f"{self.status} {self.operation} {self.method} {self.path} {self.bytes} bytes {milliseconds:.1f} ms"


class Runner(Protocol):
    """Who performs what a tick decided."""

    def perform(self, actions: Iterable[Action]) -> None:
        """Begin it, without waiting."""

    def root_of(self, node: Node) -> Path:
        """Return the root directory of a node."""

    def stop(self) -> None:
        """End every run, and return when nothing is left."""


class BatchOptions(TypedDict, total=False):
    """What a local Azure passes on to its Batch account; LocalBatch says what they mean."""

    pace: str
    port: int
    pool_quota: int
    job_quota: int
    core_quota: int | None
    low_priority_core_quota: int | None
    runner: str
    task_seconds: float
    task_output: str | None
    node_start_seconds: float | None
    clock: Clock | None
    certificate: Certificate | None
    oauth: bool
    tenant: str | None
    on_request: Callable[[RequestRecord], None] | None
    key: str


class LocalBatch(Running):
    """A Batch account on 127.0.0.1; a context manager.

    Attributes:
        endpoint: The account's URL.
        account: Its name.
        key: Its key.
        requests: The latest requests, oldest first.
        faults: What is made to go wrong on demand.
    """

    def __init__(
        self,
        *,
        state_dir: Path | str | None = None,
        pace: str = "fast",
        port: int = 0,
        pool_quota: int = 100,
        job_quota: int = 300,
        core_quota: int | None = None,
        low_priority_core_quota: int | None = None,
        runner: str = RUNNERS[0],
        task_seconds: float = 0.0,
        task_output: str | None = None,
        node_start_seconds: float | None = None,
        clock: Clock | None = None,
        certificate: Certificate | None = None,
        oauth: bool = False,
        tenant: str | None = None,
        on_request: Callable[[RequestRecord], None] | None = None,
        key: str = DEVELOPMENT_KEY,
        launcher: Launcher | None = None,
        faults: Faults | None = None,
        storage_faults: Faults | None = None,
    ) -> None:
        """Start nothing yet.

        Args:
            state_dir: Where the nodes have their files, until the end; a temporary directory unless given.
            pace: How long transitional states last: instant, fast or real.
            port: The port to listen on, if it is free; 0 for any.
            pool_quota: How many pools may exist.
            job_quota: How many jobs that are not completed may exist.
            core_quota: How many cores the dedicated nodes of all pools may have; None for any number.
            low_priority_core_quota: The same of spot nodes.
            runner: `processes`, or `simulated` for tasks that only take time.
            task_seconds: How long a simulated task takes that does not say so.
            task_output: What a simulated task leaves in each of its output files; None for nothing.
            node_start_seconds: How long a node takes to be ready for its start task, whatever the pace.
            clock: The service's clock, to be moved by `advance` alone; one of its own unless given.
            certificate: Of the server; without one, it speaks http rather than https.
            oauth: Whether bearer tokens are accepted, too, whoever signed them.
            tenant: The id of the one tenant whose tokens are accepted.
            on_request: Is called after each request.
            key: Of the account, in Base64.
            launcher: Who starts processes, and deletes the nodes' directory at the end; one of its own unless given.
            faults: The script of faults; one of its own unless given.
            storage_faults: The script of faults of the storage account beside this one, if it has one.

        Raises:
            ValueError: Tokens are to be accepted without https.
        """
        super().__init__()
        if oauth and not certificate:
            raise ValueError("No client sends a token without https: give a certificate, too")
        self._certificate = certificate
        self._oauth = oauth
        self._tenant = tenant
        self.endpoint = ""
        self.requests: collections.deque[RequestRecord] = collections.deque(maxlen=REQUESTS_KEPT)
        self._state_dir = state_dir
        self._port = port
        self._on_request = on_request
        self._launcher = launcher
        self._runner = runner
        self._task_seconds = task_seconds
        self._task_output = task_output
        self._clock = clock or Clock()
        store = Store(
            pool_quota=pool_quota,
            job_quota=job_quota,
            core_quota=core_quota,
            low_priority_core_quota=low_priority_core_quota,
        )
        self._service = BatchService(
            store,
            _pace(pace, node_start_seconds),
            root_of=self._root_of,
            key=key,
            oauth=oauth,
            tenant=tenant,
            faults=faults,
        )
        self.account, self.key = self._service.name, self._service.key
        self._wake = threading.Event()
        self._sleepers: list[Callable[[], None]] = [self._wake.set]
        """How to wake those who wait for an instant of the service's clock."""
        self.faults = self._service.faults
        self.faults.on_change = self._wake.set
        self._scripts = {"/_internal/faults": self.faults, "/_internal/storage-faults": storage_faults}
        self._is_stopping = False

    def start(self) -> None:
        """Listen, and begin to tick."""
        with contextlib.ExitStack() as stack:
            state_dir = Path(self._state_dir or tempfile.mkdtemp(prefix="localbatch-")).resolve()
            nodes = state_dir / NODES
            launcher = self._launcher
            if not launcher:
                launcher = Launcher(remove=[nodes if self._state_dir else state_dir])
                stack.callback(launcher.close)
            shutil.rmtree(nodes, ignore_errors=True)  # Of a server that was killed with its launcher.
            nodes.mkdir(parents=True)
            listener = stack.enter_context(listen(self._port))
            certificate = self._certificate
            if certificate:
                certificate.server_context()  # Uvicorn would end its thread over a certificate that is none.
            self.endpoint = f"{'https' if certificate else 'http'}://127.0.0.1:{listener.getsockname()[1]}"
            self._agent = self._start_runner(nodes, launcher)
            stack.callback(self._agent.stop)
            config = uvicorn.Config(
                self._app,
                interface="asgi3",
                http=BatchProtocol,
                ws="none",
                loop="asyncio",
                lifespan="off",
                proxy_headers=False,
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=2,
                ssl_certfile=certificate.file if certificate else None,
                ssl_keyfile=certificate.key if certificate else None,
            )
            server = uvicorn.Server(config)
            ticking = threading.Thread(target=self._tick_until_stopped, name="localbatch-tick", daemon=True)
            serving = threading.Thread(
                target=lambda: asyncio.run(_serve(server, listener)), name="localbatch-http", daemon=True
            )
            ticking.start()
            stack.callback(self._stop_ticking, ticking)
            self.faults.is_stopping = False
            serving.start()
            stack.callback(self._stop_serving, server, serving)
            self._closing = stack.pop_all()

    def advance(self, by: timedelta) -> None:
        """Move the service's clock forward, for good: what is due by then happens at once.

        Nodes are refused what a shared access signature does not allow by then. Dates that others look at stay: those
        of signed requests, and of shared access signatures that anybody else shows to the storage account.

        Raises:
            ValueError: That would be back.
        """
        self._clock.advance(by)
        for wake in self._sleepers:
            wake()

    def _start_runner(self, nodes: Path, launcher: Launcher) -> Runner:
        storage = StorageClient(self._clock.now, self._certificate, self._node_token if self._oauth else None)
        if self._runner == "simulated":
            runner = SimulatedRunner(
                nodes,
                now=self._clock.now,
                task_seconds=self._task_seconds,
                report=self._receive,
                output=None if self._task_output is None else SimulatedOutput(text=self._task_output, storage=storage),
            )
            self._sleepers.append(runner.wake)
            return runner
        account = (self.account, self.endpoint)
        return NodeAgent(nodes, account=account, launcher=launcher, storage=storage, report=self._receive)

    def _root_of(self, node: Node) -> Path:
        return self._agent.root_of(node)

    def _node_token(self) -> str:
        # The storage account's clock is the machine's, wherever the service's own was moved.
        return issue_token(STORAGE_AUDIENCE, self._tenant, datetime.now(timezone.utc))

    def _stop_serving(self, server: uvicorn.Server, thread: threading.Thread) -> None:
        self.faults.is_stopping = True
        server.should_exit = True
        thread.join()

    def _stop_ticking(self, thread: threading.Thread) -> None:
        self._is_stopping = True
        self._wake.set()
        thread.join()

    def _receive(self, report: Report) -> None:
        self._service.receive(report)
        self._wake.set()

    def _tick_until_stopped(self) -> None:
        while not self._is_stopping:
            self._wake.clear()
            wake_at = None
            try:
                actions, wake_at = self._service.tick(self._clock.now())
                self._agent.perform(actions)
            except Exception:  # The account goes on: a client that sees nothing happen finds the reason in the log.
                logger.exception("tick failed")
            self._wake.wait((wake_at - self._clock.now()).total_seconds() if wake_at else None)

    # One request.

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        started_at = self._clock.now()
        body = await read_body(receive)
        if body is None:
            return
        method, path = scope["method"], scope["raw_path"].decode()
        if path in self._scripts:
            await serve_faults(self._scripts[path], scope, body)(scope, receive, send)
            return
        operation = operation_of(method, path)
        fault = await meet(self.faults, operation, path)
        status = sent = 0

        async def count(message: Message) -> None:
            nonlocal sent
            sent += len(message.get("body", b""))
            await send(message)

        if not fault or fault.fault != "drop_before":
            response = self._service.answer(self._request(scope, body), self._clock.now(), fault)
            if method not in {"GET", "HEAD"}:
                self._wake.set()
            if isinstance(body, errors.ServiceError):
                response.headers["Connection"] = "close"  # Some of it may come yet.
            if not fault or fault.fault != "drop_after":
                status = response.status_code
                await response(scope, receive, count)
        if not status:
            await drop(scope, receive)
        record = RequestRecord(
            operation=operation,
            method=method,
            path=path,
            status=status,
            started_at=started_at,
            ended_at=self._clock.now(),
            bytes=sent,
        )
        self.requests.append(record)
        if self._on_request:
            self._on_request(record)

    def _request(self, scope: Scope, body: bytes | errors.ServiceError) -> Request:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        return Request(
            method=scope["method"],
            path=scope["raw_path"].decode(),
            query=scope["query_string"].decode(),
            headers=headers,
            body=body,
            base=f"{scope['scheme']}://{headers.get('host', self.endpoint.partition('//')[2])}",
        )


async def _serve(server: uvicorn.Server, listener: socket.socket) -> None:
    await server.serve([listener])
    await abort_connections()


def _pace(name: str, node_start_seconds: float | None) -> Pace:
    if node_start_seconds is None:
        return PACES[name]
    # The shares of the start-up that creating and starting have in reality.
    real = PACES["real"]
    share = node_start_seconds / (real.creating + real.starting)
    return dataclasses.replace(PACES[name], creating=real.creating * share, starting=real.starting * share)
