"""A Batch account as a server: HTTP, the thread that ticks, the nodes and the faults."""

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
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Protocol

import uvicorn
from starlette.types import Message, Receive, Scope, Send

from localbatch import errors
from localbatch.account.records import Action, Node, Report
from localbatch.account.store import Store
from localbatch.api.auth import verify_password
from localbatch.api.tokens import STORAGE_AUDIENCE, issue_token
from localbatch.batch_service import BatchService, Request
from localbatch.clock import Clock
from localbatch.faults.definitions import Fault
from localbatch.faults.endpoint import serve_faults
from localbatch.faults.script import Faults, meet
from localbatch.http_protocol import BatchProtocol, OwnHostOnly, drop, read_body
from localbatch.nodes.agent import NodeAgent
from localbatch.nodes.simulated import SimulatedOutput, SimulatedRunner
from localbatch.nodes.transfer import StorageClient
from localbatch.options import Options, RequestRecord
from localbatch.processes.launcher import Launcher
from localbatch.processes.private import ensure_private_folder, new_key
from localbatch.processes.running import Running
from localbatch.processes.sockets import abort_connections, listen
from localbatch.rules.agenda import PACES, Pace

logger = logging.getLogger(__name__)

MAX_REQUESTS_KEPT = 10_000
# Longer than clients pause between two requests: if a connection closes under a POST, they report an error.
KEEP_ALIVE_SECONDS = 120
# The folder of the nodes, below that of the account.
NODES = "nodes"


class Runner(Protocol):
    """Performs the actions of ticks."""

    def perform(self, actions: Iterable[Action]) -> None:
        """Start actions, without waiting for them."""

    def root_of(self, node: Node) -> Path:
        """Return the root folder of a node."""

    def stop(self) -> None:
        """End every run, and return when nothing is left."""


class LocalBatch(Running):
    """A Batch account on 127.0.0.1; a context manager.

    Attributes:
        endpoint: The URL of the account.
        account: Its name.
        key: Its key.
        requests: The latest requests, oldest first.
        faults: The fault script.
    """

    def __init__(
        self,
        options: Options | None = None,
        *,
        launcher: Launcher | None = None,
        faults: Faults | None = None,
        storage_script: Faults | None = None,
        **changes: Any,
    ) -> None:
        """Create an account without starting it.

        Args:
            options: Its options.
            launcher: Starts processes, and deletes the folder of the nodes at the end; by default a new one.
            faults: The fault script; by default an empty one.
            storage_script: The fault script of the storage account beside this one, if it has one.
            changes: Single options, as in `LocalBatch(pace="instant")`.

        Raises:
            ValueError: Tokens are to be accepted without https.
        """
        super().__init__()
        self._options = options = dataclasses.replace(options or Options(), **changes)
        self._launcher = launcher
        self._clock = options.clock or Clock()
        store = Store(
            pool_quota=options.pool_quota,
            job_quota=options.job_quota,
            core_quota=options.core_quota,
            low_priority_core_quota=options.low_priority_core_quota,
            family_core_quotas=options.family_core_quotas,
        )
        self._service = BatchService(
            store,
            _pace(options),
            root_of=lambda node: self._agent.root_of(node),  # noqa: PLW0108 - the agent exists after the start.
            key=options.key or new_key(),
            oauth=options.oauth,
            tenant=options.tenant,
            faults=faults,
        )
        self.endpoint = ""
        self.account, self.key = self._service.name, self._service.key
        self.requests: collections.deque[RequestRecord] = collections.deque(maxlen=MAX_REQUESTS_KEPT)
        self._wake = threading.Event()
        self._sleepers: list[Callable[[], None]] = [self._wake.set]
        """Functions that wake the threads that wait for an instant of the service's clock."""
        self.faults = self._service.faults
        self.faults.on_change = self._wake.set
        self._scripts = {"/_internal/faults": self.faults, "/_internal/storage-faults": storage_script}
        self._is_stopping = False

    def start(self) -> None:
        """Start to listen and to tick."""
        options, certificate = self._options, self._options.certificate
        with contextlib.ExitStack() as stack:
            state_dir = Path(options.state_dir or tempfile.mkdtemp(prefix="localbatch-")).resolve()
            ensure_private_folder(state_dir)
            nodes = state_dir / NODES
            launcher = self._launcher
            if not launcher:
                launcher = Launcher(remove=[nodes if options.state_dir else state_dir])
                stack.callback(launcher.close)
            shutil.rmtree(nodes, ignore_errors=True)  # Of a server that was killed together with its launcher.
            nodes.mkdir(parents=True)
            listener = stack.enter_context(listen(options.port))
            if certificate:
                certificate.server_context()  # Raises here what would end uvicorn's thread without a message.
            self.endpoint = f"{'https' if certificate else 'http'}://127.0.0.1:{listener.getsockname()[1]}"
            self._agent = self._start_runner(nodes, launcher)
            stack.callback(self._agent.stop)
            config = uvicorn.Config(
                OwnHostOnly(self._app, self.endpoint),
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
        """Move the service's clock forward permanently. Everything that is due by then happens at once.

        Nodes check shared access signatures by this clock. The dates of signed requests, and of shared access signatures
        that other clients use, are still checked by the clock of the machine.

        Raises:
            ValueError: `by` is negative.
        """
        self._clock.advance(by)
        for wake in self._sleepers:
            wake()

    def _start_runner(self, nodes: Path, launcher: Launcher) -> Runner:
        options = self._options
        storage = StorageClient(self._clock.now, options.certificate, self._node_token if options.oauth else None)
        if options.runner == "simulated":
            output = options.task_output
            runner = SimulatedRunner(
                nodes,
                now=self._clock.now,
                task_seconds=options.task_seconds,
                report=self._receive,
                output=None if output is None else SimulatedOutput(text=output, storage=storage),
            )
            self._sleepers.append(runner.wake)
            return runner
        account = (self.account, self.endpoint)
        return NodeAgent(nodes, account=account, launcher=launcher, storage=storage, report=self._receive)

    def _node_token(self) -> str:
        # The storage account uses the clock of the machine, even if the clock of the service was moved.
        return issue_token(STORAGE_AUDIENCE, self._options.tenant, datetime.now(timezone.utc))

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
            # Cleared before the tick: a change during the tick starts another one.
            self._wake.clear()
            wake_at = None
            try:
                actions, wake_at = self._service.tick(self._clock.now())
                self._agent.perform(actions)
            except Exception:  # The account keeps working; the log has the reason.
                logger.exception("tick failed")
            self._wake.wait((wake_at - self._clock.now()).total_seconds() if wake_at else None)

    # One request.

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        started_at = self._clock.now()
        refusal = None
        try:
            body = await read_body(receive)
        except errors.ServiceError as error:
            body, refusal = b"", error
        except ConnectionResetError:
            return
        request = self._request(scope, body)
        if request.path in self._scripts:
            is_authentic = verify_password(self.account, self.key, request.headers)
            await serve_faults(self._scripts[request.path], request.method, body, is_authentic=is_authentic)(
                scope, receive, send
            )
            return
        fault = await meet(self.faults, request.operation, request.path)
        status, size = await self._respond(request, fault, refusal, scope, receive, send)
        if not status:
            await drop(scope, receive)
        record = RequestRecord(
            operation=request.operation,
            method=request.method,
            path=request.path,
            status=status,
            started_at=started_at,
            ended_at=self._clock.now(),
            bytes=size,
        )
        self.requests.append(record)
        if self._options.on_request:
            self._options.on_request(record)

    async def _respond(
        self,
        request: Request,
        fault: Fault | None,
        refusal: errors.ServiceError | None,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> tuple[int, int]:
        """Send the response, and return its status and the size of its body. A fault may prevent it: 0, 0."""
        size = 0

        async def count_and_send(message: Message) -> None:
            nonlocal size
            size += len(message.get("body", b""))
            await send(message)

        if fault and fault.fault == "drop_before":
            return 0, 0
        response = self._service.answer(request, self._clock.now(), fault, refusal=refusal)
        # Changes may make a tick due.
        if request.method not in {"GET", "HEAD"}:
            self._wake.set()
        if fault and fault.fault == "drop_after":
            return 0, 0
        if refusal:
            response.headers["Connection"] = "close"  # The rest of the body may still arrive.
        await response(scope, receive, count_and_send)
        return response.status_code, size

    def _request(self, scope: Scope, body: bytes) -> Request:
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


def _pace(options: Options) -> Pace:
    pace = PACES[options.pace]
    if options.sample_delay_seconds is not None:
        pace = dataclasses.replace(pace, first_sample=options.sample_delay_seconds)
    if options.node_start_seconds is None:
        return pace
    # Split the time between creating and starting as on the service.
    real = PACES["real"]
    share = options.node_start_seconds / (real.creating + real.starting)
    return dataclasses.replace(pace, creating=real.creating * share, starting=real.starting * share)
