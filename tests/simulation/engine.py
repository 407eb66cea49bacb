"""A small replacement for Prefect's engine and server that runs on one thread and in virtual time.

It implements what the flow relies on: retries, `retry_condition_fn`, cached results that outlive a process, futures,
states, the order of hooks, and final states. `test_engine_contract.py` runs the same flows on both engines.

The server keeps flow runs, artifacts and results when a process dies.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import CancelledError
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Self
from uuid import UUID, uuid4

import cloudpickle
import httpx
import prefect
import prefect.context
import prefect.logging
import prefect.logging.loggers
import pytest
from prefect import Flow, Task
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import ObjectNotFound, UnfinishedRun
from prefect.futures import PrefectFuture
from prefect.states import AwaitingRetry, Completed, Crashed, Failed, Pending, Running
from prefect.utilities.annotations import BaseAnnotation, opaque, unmapped
from prefect.utilities.callables import get_call_parameters, parameters_to_args_kwargs
from prefect.utilities.math import clamped_poisson_interval

from simulation.world import Fiber, Killed, World

# Packages in which imported parts of Prefect are replaced.
PRODUCT = frozenset({"flows", "tasks"})

API_URL = "http://127.0.0.1:4200/api"

logger = logging.getLogger("simulation.prefect")
logger.propagate = False


class FinalState(State[Any]):
    """A state that has its result in memory, because Prefect's own state reads it on another thread."""

    def result(self, raise_on_failure: bool = True, **_: Any) -> Any:
        """Return the run's result or raise its error.

        Raises:
            UnfinishedRun: The run has neither.
        """
        if not self.is_final():
            raise UnfinishedRun(f"Run is in {self.type.name} state, its result is not available.")
        if raise_on_failure and not self.is_completed():
            raise self.data
        return self.data


def with_result(state: State[Any]) -> FinalState:
    """Convert a state of Prefect to one with its result in memory."""
    return FinalState(
        type=state.type, name=state.name, message=state.message, data=state.data, state_details=state.state_details
    )


@dataclass
class Server:
    """The data of a Prefect server: flow runs, artifacts and the results of steps.

    Attributes:
        flow_retries: Maximum number of retries of a failed flow run, as in Prefect's settings.
        fails: Called with each operation; raises the error of a request that fails.
    """

    runs: dict[UUID, FlowRun] = field(default_factory=dict)
    artifacts: list[SimpleNamespace] = field(default_factory=list)
    results: dict[str, bytes] = field(default_factory=dict)
    requests: int = 0
    flow_retries: int = 0
    fails: Callable[[str], None] = lambda _: None

    def create_run(self, parameters: Mapping[str, Any]) -> FlowRun:
        """Record a flow run that has not started."""
        run = FlowRun(id=uuid4(), flow_id=uuid4(), name="brave-otter", parameters=dict(parameters), state=Pending())
        self.runs[run.id] = run
        return run


class Client:
    """A Prefect client with the methods that the product calls; each call is one request."""

    def __init__(self, world: World, server: Server) -> None:
        self._world = world
        self._server = server
        self.api_url = httpx.URL(API_URL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def _request(self, operation: str) -> None:
        self._world.pause()
        self._server.requests += 1
        self._server.fails(operation)

    def create_artifact(self, artifact: Any) -> SimpleNamespace:
        """Add an artifact."""
        self._request("create_artifact")
        kept = SimpleNamespace(id=uuid4(), **artifact.model_dump())
        self._server.artifacts.append(kept)
        return kept

    def update_artifact(self, artifact_id: UUID, artifact: Any) -> None:
        """Update the fields of an artifact that are set."""
        self._request("update_artifact")
        for kept in self._server.artifacts:
            if kept.id == artifact_id:
                kept.__dict__.update(artifact.model_dump(exclude_unset=True))

    def update_flow_run(self, flow_run_id: UUID, *, name: str) -> None:
        """Rename a flow run."""
        self._request("update_flow_run")
        self._server.runs[flow_run_id].name = name

    def read_flow_run(self, flow_run_id: UUID) -> FlowRun:
        """Return a flow run."""
        self._request("read_flow_run")
        return self._server.runs[flow_run_id]

    def read_latest_artifacts(self, *, artifact_filter: Any) -> list[SimpleNamespace]:
        """Return the newest artifact of each key."""
        self._request("read_latest_artifacts")
        latest = {artifact.key: artifact for artifact in self._server.artifacts}
        return [latest[key] for key in artifact_filter.key.any_ if key in latest]

    def set_flow_run_state(self, flow_run_id: UUID, state: State[Any], *, force: bool) -> None:
        """Replace the state of a flow run."""
        if not force:
            raise NotImplementedError("a state without orchestration rules")
        self._request("set_flow_run_state")
        self._server.runs[flow_run_id].state = with_result(state)

    def read_block_document_by_name(self, *_: Any, **__: Any) -> Any:
        """Raise `ObjectNotFound`: in the simulation, settings come from the environment."""
        raise ObjectNotFound(KeyError("block"))


class Future(PrefectFuture[Any]):
    """The future of a task run in this engine."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._id = uuid4()
        self._state = with_result(Pending())
        self._callbacks: list[Callable[[PrefectFuture[Any]], None]] = []
        self._crash: BaseException | None = None
        self.is_done = False

    @property
    def task_run_id(self) -> UUID:
        """The task run's id."""
        return self._id

    @property
    def state(self) -> State[Any]:
        """The task run's state."""
        return self._state

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the task run has ended, or for `timeout` seconds."""
        self._world.wait(lambda: self.is_done, timeout)

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> Any:
        """Return the task run's result; raise its error, or return it unless `raise_on_failure`."""
        self.wait(timeout)
        if self._crash is not None:
            raise self._crash
        return self._state.result(raise_on_failure=raise_on_failure)

    def add_done_callback(self, fn: Callable[[PrefectFuture[Any]], None]) -> None:
        """Call `fn` when the task run has ended, or immediately if it has."""
        if self.is_done:
            fn(self)
        else:
            self._callbacks.append(fn)

    def end(self, state: FinalState, crash: BaseException | None = None) -> None:
        """Record the final state of the task run and call its callbacks."""
        self._state, self._crash, self.is_done = state, crash, True
        for callback in self._callbacks:
            callback(self)


# The running attempt of a step, in each fiber.
_running: ContextVar[SimpleNamespace | None] = ContextVar("running", default=None)


class _TaskRun:
    """One run of a task with its retries, in the fiber that calls `run`."""

    def __init__(self, engine: Engine, task: Task[..., Any], parameters: dict[str, Any]) -> None:
        self._engine = engine
        self._task = task
        self._parameters = {name: _plain(value) for name, value in parameters.items()}
        flow_run_id = engine.flow_run.id if engine.flow_run else None
        self.record = SimpleNamespace(id=uuid4(), flow_run_id=flow_run_id, start_time=None, name=task.name)
        self.state: FinalState = with_result(Pending())

    def run(self, *, is_submitted: bool = False) -> FinalState:
        """Run the task and return its final state, or `NotReady` if its inputs failed.

        Raises:
            CancelledError: The flow is ending and this attempt has not started.
        """
        try:
            self._parameters = {name: _resolved(value) for name, value in self._parameters.items()}
        except _UpstreamError as error:
            self.state = with_result(Pending(name="NotReady", message=str(error)))
            return self.state
        self._engine.world.note(f"step {self.name}")
        self.record.start_time = self._engine.world.now
        key = self._key()
        stored = self._engine.server.results.get(key) if key is not None else None
        if stored is not None:
            return self._end(Completed(name="Cached", data=cloudpickle.loads(stored)))
        arguments, options = parameters_to_args_kwargs(self._task.fn, self._parameters)
        retries = 0
        while True:
            if is_submitted and self._engine.is_ending:
                raise CancelledError("Task run cancelled by the task runner")
            attempt = SimpleNamespace(task=self._task, task_run=SimpleNamespace(run_count=retries + 1))
            token = _running.set(attempt)
            try:
                result = self._task.fn(*arguments, **options)
                if key is not None:
                    self._engine.server.results[key] = cloudpickle.dumps(result)
                return self._end(Completed(data=result))
            except Exception as error:  # noqa: BLE001 - any exception is the result of the step
                failed = Failed(message=f"Task run encountered an exception {error!r}", data=error)
                if retries >= self._task.retries or not self._may_retry(failed):
                    return self._end(failed)
                self._engine.world.note(f"retry {self.name}: {type(error).__name__}")
                self._engine.world.sleep(self._delay(retries))
                retries += 1
            finally:
                _running.reset(token)

    def generate(self) -> Generator[Any, None, None]:
        """Run a generator task, without retries and cache."""
        self.record.start_time = self._engine.world.now
        arguments, options = parameters_to_args_kwargs(self._task.fn, self._parameters)
        try:
            yield from self._task.fn(*arguments, **options)
        except Exception as error:
            self._end(Failed(data=error))
            raise
        self._end(Completed(data=None))

    @property
    def name(self) -> str:
        """The name of the step in the trace."""
        return str(self._task.task_run_name or self._task.name).format_map(_Shown(self._parameters))

    def _key(self) -> str | None:
        if not self._task.persist_result or self._task.cache_policy is None:
            return None
        context: Any = SimpleNamespace(task=self._task)
        return self._task.cache_policy.compute_key(
            task_ctx=context, inputs=self._parameters, flow_parameters=self._engine.flow_parameters
        )

    def _may_retry(self, failed: State[Any]) -> bool:
        condition = self._task.retry_condition_fn
        record: Any = self.record
        try:
            return condition is None or bool(condition(self._task, record, with_result(failed)))
        except Exception:
            logger.exception("retry_condition_fn failed")
            return False

    def _delay(self, retries: int) -> float:
        delays = self._task.retry_delay_seconds
        if not delays:
            return 0.0
        seconds = delays[min(retries, len(delays) - 1)] if isinstance(delays, Sequence) else float(delays)
        jitter = self._task.retry_jitter_factor
        return clamped_poisson_interval(seconds, clamping_factor=jitter) if jitter and seconds > 0 else seconds

    def _end(self, state: State[Any]) -> FinalState:
        self.state = with_result(state)
        self.state.timestamp = self._engine.world.now  # type: ignore[assignment]
        task = self._task
        hooks = task.on_completion_hooks if self.state.is_completed() else task.on_failure_hooks
        for hook in hooks:
            _call_hook(hook, task, self.record, self.state)
        return self.state


class Engine:
    """Runs flows and their tasks instead of Prefect's engine.

    Attributes:
        server: The data that outlives a process.
        flow_run: The active flow run of this process.
        is_ending: Whether the body of the flow has ended.
    """

    def __init__(self, world: World, server: Server) -> None:
        self.world = world
        self.server = server
        self.flow_run: FlowRun | None = None
        self.flow_parameters: dict[str, Any] = {}
        self._submitted: list[Fiber] = []
        self._queue: list[Future] = []
        self.is_ending = False
        self._running = 0
        self._limit = sys.maxsize
        self.runtime = _Runtime(self)

    # Flows.

    def run_flow(self, flow: Flow[..., Any], flow_run: FlowRun) -> FinalState:
        """Run a flow run as the process of a worker does, and return its final state.

        Raises:
            BaseException: Any exception that is not an `Exception`, after the crash hooks.
        """
        self.flow_run, self._submitted, self._queue, self._running = flow_run, [], [], 0
        self.is_ending = False
        self._limit = getattr(flow.task_runner, "_max_workers", sys.maxsize)
        try:
            try:
                state = self._call(flow, flow_run)
            finally:
                # Task runs that have not started never do; the others finish first.
                self.is_ending = True
                self._queue.clear()
                self._wait_for_submitted()
        except Killed:
            raise
        except BaseException as error:
            if not (flow_run.state and flow_run.state.is_final()):
                self._set_state(flow, with_result(Crashed(message=f"Execution was interrupted: {error!r}", data=error)))
            raise
        return state

    def _call(self, flow: Flow[..., Any], flow_run: FlowRun) -> FinalState:
        try:
            parameters = flow.validate_parameters(flow_run.parameters)
        except Exception as error:  # noqa: BLE001 - as in a step
            return self._set_state(
                flow, with_result(Failed(message=f"Validation of flow parameters failed: {error}", data=error))
            )
        parameters = get_call_parameters(flow.fn, (), parameters)
        self.flow_parameters = parameters
        if callable(flow.flow_run_name):
            flow_run.name = flow.flow_run_name()
        self._set_state(flow, with_result(Running()))
        arguments, options = parameters_to_args_kwargs(flow.fn, parameters)
        try:
            result = flow.fn(*arguments, **options)
        except Exception as error:  # noqa: BLE001 - as in a step
            self.world.note(f"the flow raised {type(error).__name__}: {error}")
            state = self._set_state(
                flow, with_result(Failed(message=f"Flow run encountered an exception: {error!r}", data=error))
            )
            return state if state.is_final() else self._call(flow, flow_run)
        state = self._set_state(flow, with_result(result if isinstance(result, State) else Completed(data=result)))
        return state if state.is_final() else self._call(flow, flow_run)

    def _set_state(self, flow: Flow[..., Any], state: FinalState) -> FinalState:
        flow_run = self.flow_run
        if flow_run is None:
            raise RuntimeError("no flow run is under way")
        self.world.pause()
        self.server.fails("set_final_state" if state.is_final() else "set_state")
        if state.is_running():
            flow_run.run_count += 1
        if state.is_failed() and 0 < flow_run.run_count <= self.server.flow_retries:
            # The server changes the state, so the failure hooks are not called.
            state = with_result(AwaitingRetry())
        state.timestamp = self.world.now  # type: ignore[assignment]
        state.state_details.flow_run_id = flow_run.id
        flow_run.state = state
        self.world.note(f"flow run {state.name}")
        hooks = {
            StateType.COMPLETED: flow.on_completion_hooks,
            StateType.FAILED: flow.on_failure_hooks,
            StateType.CRASHED: flow.on_crashed_hooks,
            StateType.RUNNING: flow.on_running_hooks,
        }
        for hook in hooks.get(state.type) or ():
            _call_hook(hook, flow, flow_run, state)
        return state

    def _wait_for_submitted(self) -> None:
        for fiber in self._submitted:
            self.world.wait(lambda fiber=fiber: fiber.is_done)

    # Tasks.

    def call(self, task: Task[..., Any], *arguments: Any, **options: Any) -> Any:
        """Run a task in the current fiber, as a call does."""
        run = _TaskRun(self, task, get_call_parameters(task.fn, arguments, options))
        if task.isgenerator:
            return run.generate()
        return_state = options.pop("return_state", False)
        state = run.run()
        return state if return_state else state.result()

    def submit(self, task: Task[..., Any], *arguments: Any, **options: Any) -> Future:
        """Run a task in a new fiber."""
        return self._submit(task, get_call_parameters(task.fn, arguments, options))

    def map(self, task: Task[..., Any], *arguments: Any, **options: Any) -> list[Future]:
        """Run a task in a new fiber for each element of the mapped arguments."""
        parameters = get_call_parameters(task.fn, arguments, options)
        fixed: dict[str, Any] = {}
        mapped: dict[str, list[Any]] = {}
        for name, value in parameters.items():
            plain = _plain(value)
            if isinstance(value, unmapped):
                fixed[name] = value.value
            elif isinstance(plain, Iterable) and not isinstance(plain, (str, bytes, Mapping)):
                mapped[name] = list(plain)
            else:
                fixed[name] = plain
        count = len(next(iter(mapped.values())))
        return [self._submit(task, {**fixed, **{name: each[i] for name, each in mapped.items()}}) for i in range(count)]

    def _submit(self, task: Task[..., Any], parameters: dict[str, Any]) -> Future:
        future = Future(self.world)
        run = _TaskRun(self, task, parameters)

        def work() -> None:
            # Start in order, as in a thread pool, so that earlier task runs never wait for later ones.
            self.world.wait(
                lambda: future not in self._queue or (self._running < self._limit and self._queue[0] is future)
            )
            if future not in self._queue:
                future.end(with_result(Crashed()), CancelledError())
                return
            self._queue.pop(0)
            self._running += 1
            try:
                future.end(run.run(is_submitted=True))
            except Killed:
                raise
            except BaseException as error:  # noqa: BLE001 - the waiting fiber raises it
                future.end(with_result(Crashed(data=error)), error)
            finally:
                self._running -= 1

        self._queue.append(future)
        self._submitted.append(self.world.spawn(task.name, self.world.current.process, work))
        return future

    # Replacement of Prefect.

    @contextmanager
    def in_place(self, patches: pytest.MonkeyPatch) -> Generator[None, None, None]:
        """Run flows, tasks and clients on this engine and its server."""
        engine = self

        def call_flow(flow: Flow[..., Any], *arguments: Any, return_state: bool = False, **options: Any) -> Any:
            parameters = get_call_parameters(flow.fn, arguments, options, apply_defaults=False)
            state = engine.run_flow(flow, engine.server.create_run(parameters))
            return state if return_state else state.result()

        patches.setattr(Flow, "__call__", call_flow)
        patches.setattr(Task, "__call__", _of_task(engine.call))
        patches.setattr(Task, "submit", _of_task(engine.submit))
        patches.setattr(Task, "map", _of_task(engine.map))
        replace_everywhere(patches, prefect.get_client, lambda **_: Client(engine.world, engine.server))
        replace_everywhere(patches, prefect.logging.get_run_logger, lambda *_, **__: logger)
        replace_everywhere(patches, prefect.logging.loggers.flow_run_logger, lambda *_, **__: logger)
        replace_everywhere(patches, prefect.runtime.flow_run, self.runtime)
        replace_everywhere(patches, prefect.context.TaskRunContext, SimpleNamespace(get=_running.get))
        yield


def _of_task(run: Callable[..., Any]) -> Callable[..., Any]:
    """Create a method of `Task` from a bound method of the engine, which would not receive the task."""

    def method(task: Task[..., Any], *arguments: Any, **options: Any) -> Any:
        return run(task, *arguments, **options)

    return method


class _Runtime:
    """A replacement for `prefect.runtime.flow_run`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def id(self) -> str:
        return str(self._engine.flow_run.id) if self._engine.flow_run else ""

    @property
    def name(self) -> str:
        return self._engine.flow_run.name if self._engine.flow_run else ""

    @property
    def parameters(self) -> dict[str, Any]:
        return self._engine.flow_parameters


def replace_everywhere(
    patches: pytest.MonkeyPatch, real: object, replacement: object, packages: AbstractSet[str] = PRODUCT
) -> None:
    """Replace an object under every name in the modules of `packages`."""
    for module_name, module in list(sys.modules.items()):
        if packages & {module_name.partition(".")[0], module_name.rpartition(".")[2]}:
            for name, value in list(vars(module).items()):
                if value is real:
                    patches.setattr(module, name, replacement)


class _UpstreamError(Exception):
    """An input of a step failed."""


class _Shown(dict[str, Any]):
    """Parameters for formatting the name of a task run; missing names stay as they are."""

    def __missing__(self, key: str) -> str:
        return key


def _plain(value: Any) -> Any:
    return value.unwrap() if isinstance(value, (opaque, BaseAnnotation)) else value


def _resolved(value: Any) -> Any:
    """Replace a future, or each future in a list, by its result.

    Raises:
        _UpstreamError: A future failed.
    """
    if isinstance(value, list) and any(isinstance(each, PrefectFuture) for each in value):
        return [_resolved(each) for each in value]
    if not isinstance(value, PrefectFuture):
        return value
    value.wait()
    if not value.state.is_completed():
        raise _UpstreamError(f"Upstream task run did not reach a 'COMPLETED' state: {value.state!r}")
    return value.state.result()


def _call_hook(hook: Callable[..., object], subject: object, run: object, state: State[Any]) -> None:
    try:
        hook(subject, run, state)
    except Exception:
        logger.exception("An error was encountered while running hook %r", getattr(hook, "__name__", hook))
