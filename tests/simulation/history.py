"""Play one history from a plan, and record the outcome for the invariants."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import logging
import os
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, unquote, urlsplit
from uuid import UUID

import azure.core.polling._poller as sdk_poller
import pytest
from prefect.client.schemas.objects import FlowRun, State

import flows.cli.main
import flows.cli.run
import flows.cli.sweep
import flows.topn
import tasks.azure.transport
import tasks.clock
import tasks.model.corpus
import tasks.report.artifacts
import tasks.report.events
import tasks.workload.task_script_package
from localbatch import DEVELOPMENT_ACCOUNT, DEVELOPMENT_KEY
from localbatch.account.records import Node, StartRun
from localbatch.account.store import Store
from localbatch.api import auth
from localbatch.batch_service import BatchService
from localbatch.rules.agenda import PACES
from localbatch.wire import http_date
from simulation.engine import API_URL, Engine, Server
from simulation.engine import logger as prefect_logger
from simulation.nodes import Nodes
from simulation.plan import Act, Exit, FileSpec, Plan, WireFault
from simulation.storage import Container, InProcessSession, MemoryStorage, Request, Response
from simulation.wire import Call, Fault, Wire
from simulation.world import START, Fiber, Process, World
from tasks.azure import accounts
from tasks.report import timing
from tasks.report.model import FilesFailedError, RunReport
from tasks.steps import life as signs_of_life
from tasks.workload import results_store

BATCH_ENDPOINT = "http://127.0.0.1:10100"
STORAGE_ACCOUNT = "simulated"
STORAGE_KEY = base64.b64encode(b"the key of a storage account that is kept in memory").decode()
KEYS = {"the Batch key": DEVELOPMENT_KEY, "the storage key": STORAGE_KEY}

# Maximum time for started deletions, and for nodes to leave after a deadline.
DELETION_SECONDS = 180.0
NODES_GRACE = timedelta(minutes=20)

# A process imports Prefect before it sends its first request, so two attempts never start in the same second.
PROCESS_START_SECONDS = 2.0

# Resources of other runs and other users, which must not change.
OTHER_RUN = "topn-" + "ab" * 16 + "-0"
DEAD_RUN = "topn-" + "cd" * 16 + "-0"
OTHERS = ("mine", "topn-mine", OTHER_RUN)
EXISTING_POOL = "mine-existing"

# The container and the folder with the inputs in Blob Storage.
SOURCE, FOLDER = "texts", "b/"


@dataclass
class Life:
    """One client, from start to exit.

    Attributes:
        exit: How the plan lets the client exit.
        status: The exit status of the command; None for the process of a worker and for a killed client.
        report: The report of the run, if it has one.
        error: The error that ended the run, if it has no report.
        flow_run: The flow run on the Prefect server.
        state: The state of the flow run when the client exited.
        fired: Kinds of faults that happened during the life.
    """

    exit: Exit
    flow_run: FlowRun | None = None
    state: State[Any] | None = None
    status: int | None = None
    report: RunReport | None = None
    error: BaseException | None = None
    stdout: str = ""
    stderr: str = ""
    started_at: datetime = START
    ended_at: datetime = START
    fired: set[str] = field(default_factory=set)

    @property
    def is_over(self) -> bool:
        """Whether the client exited by itself, or was interrupted and cleaned up."""
        return self.exit.kind != "killed"


@dataclass
class Outcome:
    """The outcome of a history, which the invariants check.

    Attributes:
        counted: How often the nodes counted each content, by SHA-256.
        repeated: Ids of Batch tasks that ran although they had succeeded before the client started.
        leftovers: Resources of the last run some minutes after its end.
        leftovers_of_dead: Resources of killed clients' runs at the same time.
        leftovers_after_sweep: Resources of all runs after the last sweep, except kept ones.
        others_changed: Resources of others that were changed or deleted.
        late_nodes: Nodes of runs that existed long after the deadline.
        node_seconds: Time of the working nodes of runs by the service's clock, by "dedicated" and "spot".
        fired: Number of faults that happened, by kind.
        texts: All texts that a user can read.
    """

    plan: Plan
    lives: list[Life] = field(default_factory=list)
    counted: Mapping[str, int] = field(default_factory=dict)
    repeated: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    leftovers_of_dead: list[str] = field(default_factory=list)
    leftovers_after_sweep: list[str] = field(default_factory=list)
    others_changed: list[str] = field(default_factory=list)
    late_nodes: list[str] = field(default_factory=list)
    node_seconds: Counter[str] = field(default_factory=Counter)
    fired: dict[str, int] = field(default_factory=dict)
    sweep: Life | None = None
    texts: list[str] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    requests: dict[str, int] = field(default_factory=dict)
    contents: dict[str, list[bytes]] = field(default_factory=dict)
    outputs: dict[str, bytes] = field(default_factory=dict)
    seconds: float = 0.0


def play(plan: Plan) -> Outcome:
    """Play a plan until all clients have exited.

    Raises:
        Stuck: The history does not end.
    """
    world = World(plan.seed)
    with (
        tempfile.TemporaryDirectory(prefix="topn-simulation-", dir=_memory()) as folder,
        world.in_control(plan.seed) as patches,
    ):
        history = _History(plan, world, Path(folder), patches)
        world.run(history.main)
        return history.outcome


def _memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


class _History:
    def __init__(self, plan: Plan, world: World, folder: Path, patches: pytest.MonkeyPatch) -> None:
        self.plan = plan
        self.world = world
        self.outcome = Outcome(plan=plan, trace=world.trace)
        self._folder = folder
        self._patches = patches
        self.service = Process("service")
        self._server = Server(fails=self._prefect_fails, flow_retries=plan.flow_retries)
        self._engine = Engine(world, self._server)
        self._pending_acts = list(plan.acts)
        self._sources: dict[str, bytes] = {}
        self._forbidden: set[str] = set()
        self._pending_fates = [file for file in plan.files if file.fate != "stays"]
        self._wire_first: dict[WireFault, tuple[datetime, int]] = {}
        self._is_faulty = True
        self._client: tuple[Process, Fiber, Exit, int] | None = None
        self._has_changed = True
        self._has_ended = False
        self._completed: set[str] = set()
        self._foreign: list[str] = []
        self._failure: Exception | None = None
        self._logs = io.StringIO()
        store = Store()
        self._batch = BatchService(
            store, PACES[plan.pace], root_of=self._root_of, key=DEVELOPMENT_KEY, accepts_machine_time=False
        )
        self.storage = MemoryStorage(STORAGE_ACCOUNT, STORAGE_KEY, self._service_now)
        self._wire = Wire(
            world=world,
            batch=self._batch,
            storage=self.storage,
            changed=self._change,
            now=self._service_now,
            choose=self._choose,
            on_request=self._before,
            on_response=self._after,
        )
        self._nodes = Nodes(
            world=world,
            process=self.service,
            root=folder / "nodes",
            send=self._send_of_nodes,
            report=self._receive,
            seconds=self._work_seconds,
            now=self._service_now,
        )

    # The whole history.

    def main(self) -> None:
        """Play the history in the main fiber."""
        # A shell starts background commands with an ignored SIGINT, and `topn` keeps an ignored signal ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with self._environment():
            self.world.spawn("service", self.service, self._serve)
            self._create_others()
            flow_run: FlowRun | None = None
            if self.plan.store_fails:
                (self._folder / "state").mkdir()
                (self._folder / "state" / "results").write_text("A file where a folder should be.")
            for exit_ in self.plan.exits:
                if self.plan.deployed and flow_run is None:
                    flow_run = self._server.create_run(self._parameters())
                    if self.plan.foreign:
                        self._create_foreign(flow_run)
                life = self._run_client(exit_, flow_run)
                if self.plan.damages_store:
                    self._damage_store()
                if exit_.then != "retried":
                    flow_run = None
                self.world.note(f"life ended: {life.status} {life.error!r}")
            self._finish()

    def _finish(self) -> None:
        """End all faults, and record the leftovers before and after a last sweep."""
        self._is_faulty = False
        self._batch.faults.clear()
        self._change()
        self.world.sleep(DELETION_SECONDS)
        last = self.outcome.lives[-1]
        ids = [str(life.flow_run.id) for life in self.outcome.lives if life.flow_run]
        if last.is_over and last.flow_run:
            found = self._of_runs([str(last.flow_run.id)])
            self.outcome.leftovers = [name for name, metadata in found.items() if not metadata.get("kept")]
            self.outcome.kept = [name for name, metadata in found.items() if metadata.get("kept")]
        dead = {str(life.flow_run.id) for life in self.outcome.lives if life.flow_run and not life.is_over}
        dead -= {str(last.flow_run.id)} if last.flow_run else set()
        self.outcome.leftovers_of_dead = list(self._of_runs(sorted(dead)))
        deadline = max((life.started_at for life in self.outcome.lives), default=START)
        deadline += timedelta(minutes=self.plan.timeout_minutes) + NODES_GRACE
        self.world.sleep((deadline - self.world.now).total_seconds())
        self.outcome.late_nodes = [
            f"{pool.id}/{node.id}"
            for pool in self._batch.store.pools.values()
            for node in pool.nodes.values()
            if _is_ours(pool.id, ids)
        ]
        self.outcome.sweep = self._run_client(Exit(), None, ["sweep"])
        self.world.sleep(DELETION_SECONDS)
        found = self._of_runs([*ids, str(UUID(DEAD_RUN.split("-")[1]))])
        self.outcome.leftovers_after_sweep = [name for name, metadata in found.items() if not metadata.get("kept")]
        self.outcome.others_changed = self._changed_others()
        self.outcome.counted = dict(self._nodes.counted)
        self.outcome.requests = dict(self._wire.requests)
        self.outcome.seconds = (self.world.now - START).total_seconds()
        self.outcome.outputs = {
            str(path.relative_to("results")): path.read_bytes().replace(str(self._folder).encode(), b"/simulated")
            for path in Path("results").rglob("*")
            if path.is_file()
        }
        self.outcome.texts += [
            self._logs.getvalue(),
            *(f"{artifact.data} {artifact.description}" for artifact in self._server.artifacts),
            *(f"{run.name} {run.state and run.state.message} {run.parameters}" for run in self._server.runs.values()),
            *(content.decode("utf-8", "replace") for content in self.outcome.outputs.values()),
        ]
        # The name of the folder is the only thing that does not depend on the seed.
        self.outcome.texts = [text.replace(str(self._folder), "/simulated") for text in self.outcome.texts]

    # Clients.

    def _run_client(self, exit_: Exit, flow_run: FlowRun | None, arguments: Sequence[str] | None = None) -> Life:
        """Run a client until it exits or is killed."""
        self.world.sleep(PROCESS_START_SECONDS)
        life = Life(exit=exit_, flow_run=flow_run, started_at=self.world.now)
        if arguments is None:
            self.outcome.lives.append(life)
        for cache in (accounts._batch_account, accounts._blob_account, results_store._results_store):
            cache.cache_clear()
        # A new process knows only the clock of its machine.
        tasks.clock._ahead.clear()
        timing.finished_task_runs.clear()
        self._engine.flow_run = None
        process = Process("client")

        def work() -> object:
            if flow_run is not None:
                return self._engine.run_flow(flows.topn.topn, flow_run)
            return flows.cli.main.main(arguments or self._arguments())

        out, err = io.StringIO(), io.StringIO()
        send = self._wire.client(process)
        self._patches.setattr(tasks.azure.transport, "Session", lambda: InProcessSession(send))
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            fiber = self.world.spawn("client", process, work)
            self._client, self._has_ended = (process, fiber, exit_, self._wire.count), False
            self.world.wait(lambda: fiber.is_done or process.is_dead)
            # The process of a worker ends with its flow run, and so do its threads.
            self.world.kill(process)
            self.world.wait(lambda: not process.fibers)
        self._client = None
        _release_locks()
        self._completed |= {
            task.id
            for job in self._batch.store.jobs.values()
            for task in job.tasks.values()
            if task.execution.result == "success"
        }
        if self._failure is not None:
            raise self._failure
        life.stdout, life.stderr = out.getvalue(), err.getvalue()
        life.ended_at = self.world.now
        self.outcome.texts += [life.stdout, life.stderr]
        life.flow_run = life.flow_run or self._engine.flow_run
        life.state = life.flow_run.state if life.flow_run else None
        if fiber.result is not None or fiber.error is not None:
            life.error = fiber.error
            life.status = fiber.result if isinstance(fiber.result, int) else None
            if arguments is None and life.state and life.state.is_final():
                _store_data(life, life.state.data)
        return life

    def _arguments(self) -> list[str]:
        plan = self.plan
        return [
            "run",
            "--json",
            f"--num-words={plan.num_words}",
            *(["--ignore-case"] if plan.ignore_case else []),
            f"--encoding={plan.encoding}",
            *([f"--files-per-task={plan.files_per_task}"] if plan.files_per_task else []),
            *(["--refresh"] if plan.refresh else []),
            *([] if plan.corpus else ["--no-corpus"]),
            *(f"--keep-{kind}" for kind in sorted(plan.keep)),
            *([f"--pool-id={EXISTING_POOL}"] if plan.existing_pool else []),
            "--",
            *self._inputs(),
        ]

    def _parameters(self) -> dict[str, Any]:
        plan = self.plan
        return {
            "inputs": self._inputs(),
            "num_words": plan.num_words,
            "ignore_case": plan.ignore_case,
            "encoding": plan.encoding,
            "files_per_task": plan.files_per_task,
            "refresh": plan.refresh,
            "corpus": plan.corpus,
            "nodes": plan.nodes,
            "spot_nodes": plan.spot_nodes,
            "timeout_minutes": plan.timeout_minutes,
            "pool_id": EXISTING_POOL if plan.existing_pool else None,
            **{f"keep_{kind}": kind in plan.keep for kind in ("containers", "job", "pool")},
        }

    def _damage_store(self) -> None:
        """Change a count in each stored result, and keep the file readable."""
        for path in (self._folder / "state" / "results").glob("*.json"):
            found = json.loads(path.read_text())
            for name, text in found["outputs"].items():
                counts = json.loads(text)
                counts["words"] += 1
                found["outputs"][name] = json.dumps(counts)
            path.write_text(json.dumps(found))
            self._fire("store damaged")

    def _inputs(self) -> list[str]:
        files = [f"in/{file.name}" for file in self.plan.files if Path("in", file.name).exists()]
        return [*files, *([f"az://{SOURCE}/{FOLDER}**"] if any(file.is_blob for file in self.plan.files) else [])]

    # The service.

    def _root_of(self, node: Node) -> Path:
        return self._nodes.root_of(node)

    def _service_now(self) -> datetime:
        return self.world.now + timedelta(seconds=self.plan.skew)

    def _serve(self) -> None:
        measured_at = self._service_now()
        while True:
            self._has_changed = False
            self._measure_nodes(self._service_now() - measured_at)
            measured_at = self._service_now()
            actions, wake_at = self._batch.tick(self._service_now())
            self._nodes.perform(actions)
            timeout = None if wake_at is None else (wake_at - self._service_now()).total_seconds()
            self.world.wait(lambda: self._has_changed, timeout)

    def _measure_nodes(self, elapsed: timedelta) -> None:
        for pool in self._batch.store.pools.values():
            for node in pool.nodes.values():
                if self.is_of_run(f"pool {pool.id}") and node.state not in {"preempted", "leavingpool"}:
                    kind = "dedicated" if node.dedicated else "spot"
                    self.outcome.node_seconds[kind] += elapsed.total_seconds()

    def _change(self) -> None:
        self._has_changed = True

    def _receive(self, report: Any) -> None:
        self._batch.receive(report)
        self._change()

    def _work_seconds(self, action: StartRun) -> float:
        task_id = action.environment.get("AZ_BATCH_TASK_ID", "")
        if task_id in self._completed:
            self.outcome.repeated.append(task_id)
        return self.world.random.uniform(*self.plan.task_seconds)

    # Faults.

    def _fire(self, name: str) -> None:
        self.outcome.fired[name] = self.outcome.fired.get(name, 0) + 1
        if self.outcome.lives:
            self.outcome.lives[-1].fired.add(name)

    def _choose(self, call: Call) -> Fault | None:
        if not self._is_faulty:
            return None
        for fault in self.plan.wire:
            if fault.service not in {"*", call.service} or fault.operation not in {"*", call.operation}:
                continue
            if call.number < fault.first:
                continue
            began_at, times = self._wire_first.setdefault(fault, (self.world.now, 0))
            if fault.times is not None and times >= fault.times:
                continue
            if fault.seconds is not None and (self.world.now - began_at).total_seconds() > fault.seconds:
                continue
            if self.world.random.random() >= fault.chance:
                continue
            self._wire_first[fault] = began_at, times + 1
            self._fire(f"wire {fault.kind}")
            return Fault(
                kind=fault.kind,
                after=fault.after,
                status=fault.status,
                seconds=fault.delay,
                retry_after=fault.retry_after,
            )
        return None

    def _prefect_fails(self, operation: str) -> None:
        if self._is_faulty and operation in self.plan.prefect_fails:
            self._fire("prefect")
            raise ConnectionError("The Prefect server does not answer.")

    def _before(self, call: Call) -> None:
        if call.operation == "get_account_list":
            # The other run is alive in another folder: this is its heartbeat.
            self.storage.containers[OTHER_RUN].modified_at = self._service_now()
        if not self._is_faulty:
            return
        for file in [file for file in self._pending_fates if file.at <= call.number]:
            self._pending_fates.remove(file)
            self._fire(f"file {file.fate}")
            if file.fate == "forbidden":
                self._forbidden.add(file.name)
                continue
            if file.is_blob:
                self._put_blob(file, file.content + b" changed")
            else:
                path = self._folder / "work" / "in" / file.name
                path.unlink() if file.fate == "deleted" else path.write_bytes(file.content + b" changed")
            self.outcome.contents[file.name].append(b"" if file.fate == "deleted" else file.content + b" changed")
        for act in [act for act in self._pending_acts if act.at <= call.number]:
            self._pending_acts.remove(act)
            try:
                self._act(act)
            except Exception as error:  # noqa: BLE001 - the client would treat it as its own error
                self._failure = error
        self._end_client(call, after=False)

    def _after(self, call: Call) -> None:
        if self._is_faulty:
            self._end_client(call, after=True)

    def _end_client(self, call: Call, *, after: bool) -> None:
        if self._client is None:
            return
        process, fiber, exit_, started_with = self._client
        is_there = call.number - started_with == exit_.at or call.operation == exit_.operation
        if exit_.kind == "ends" or exit_.after != after or not is_there or self._has_ended:
            return
        self._has_ended = True
        self.world.note(f"the client is {exit_.kind}")
        self._fire(exit_.kind)
        if exit_.kind == "killed":
            self.world.kill(process)
        elif self.world.current is fiber:
            signal.raise_signal(signal.SIGINT)
        else:
            fiber.on_resume = lambda: signal.raise_signal(signal.SIGINT)
            fiber.wakes_at = self.world.now

    def _act(self, act: Act) -> None:
        """Perform an act of the plan on the run or its nodes."""
        self.world.note(f"act {act.name}")
        if act.name == "suspend":
            if self._client is not None:
                self._client[0].suspended_until = self.world.now + timedelta(seconds=act.options["seconds"])
            return
        if act.name not in _OPERATIONS:
            self._fire(act.name)
            self._batch.faults.add(act.name, **act.options)
            if act.until is not None:
                self.world.spawn("act ends", self.service, lambda: self._end_act(act))
            return
        jobs = [job for job in self._batch.store.jobs.values() if self.is_of_run(f"job {job.id}")]
        pools = [pool for pool in self._batch.store.pools.values() if self.is_of_run(f"pool {pool.id}")]
        done = _OPERATIONS[act.name](self, jobs, pools)
        if done:
            self._fire(act.name)

    def _end_act(self, act: Act) -> None:
        self.world.sleep(act.until or 0.0)
        self.world.note(f"act {act.name} ends")
        self._batch.faults.clear()
        self._change()

    def send_as_other(self, method: str, path: str, body: object = None) -> int:
        """Send a request of another user to the Batch account and return the status."""
        content = b"" if body is None else json.dumps(body).encode()
        headers = {"ocp-date": http_date(self._service_now())}
        if body is not None or method != "GET":
            headers |= {"content-length": str(len(content)), "content-type": "application/json; odata=minimalmetadata"}
        query = "api-version=2025-06-01"
        signed = auth.sign(DEVELOPMENT_KEY, auth.string_to_sign(DEVELOPMENT_ACCOUNT, method, path, query, headers))
        headers["authorization"] = f"SharedKey {DEVELOPMENT_ACCOUNT}:{signed}"
        return self._wire.send(Request(method, f"{BATCH_ENDPOINT}{path}?{query}", headers, content)).status

    # Resources.

    def _create_others(self) -> None:
        far, past = "2030-01-01T00:00:00+00:00", "2026-01-01T00:00:00+00:00"
        owners: dict[str, dict[str, str]] = {
            "mine": {"whose": "mine"},
            "topn-mine": {},
            EXISTING_POOL: {},
            OTHER_RUN: _marks(OTHER_RUN, far),
        }
        if self.plan.dead_run:
            owners[DEAD_RUN] = _marks(DEAD_RUN, past)
        for name, metadata in owners.items():
            items = [{"name": key, "value": value} for key, value in metadata.items()]
            created = self.send_as_other(
                "POST",
                "/pools",
                {**_POOL, "id": name, "metadata": items, "targetDedicatedNodes": 2 * (name == EXISTING_POOL)},
            )
            created_job = self.send_as_other(
                "POST", "/jobs", {"id": name, "poolInfo": {"poolId": name}, "metadata": items}
            )
            if (created, created_job) != (HTTPStatus.CREATED, HTTPStatus.CREATED):
                raise RuntimeError(f"{name} could not be created: {created}, {created_job}")
            self.storage.containers[name] = Container(dict(metadata), self.world.now, "etag")

    def _create_foreign(self, flow_run: FlowRun) -> None:
        """Create a resource of another user under a name that a run needs."""
        name = f"topn-{flow_run.id.hex}-0"
        if self.plan.foreign == "pool":
            created = self.send_as_other("POST", "/pools", {**_POOL, "id": name, "targetDedicatedNodes": 0})
        elif self.plan.foreign == "job":
            created = self.send_as_other("POST", "/jobs", {"id": name, "poolInfo": {"poolId": "mine"}})
        else:
            name, created = f"{name}-in", HTTPStatus.CREATED
            self.storage.containers[name] = Container({"owner": "somebody"}, self.world.now, "etag")
        if created != HTTPStatus.CREATED:
            raise RuntimeError(f"{name} could not be created: {created}")
        self._foreign.append(f"{self.plan.foreign} {name}")

    def is_of_run(self, resource: str) -> bool:
        """Check whether a resource, such as "pool topn-1", was created by a run of this history."""
        name = resource.partition(" ")[2]
        return name.startswith("topn-") and name not in {*OTHERS, DEAD_RUN} and resource not in self._foreign

    def _changed_others(self) -> list[str]:
        store = self._batch.store
        names = (*OTHERS, EXISTING_POOL)
        found = [f"pool {name}" for name in names if name not in store.pools or store.pools[name].state != "active"]
        found += [f"job {name}" for name in names if name not in store.jobs or store.jobs[name].state != "active"]
        found += [f"container {name}" for name in names if name not in self.storage.containers]
        there = self._everything()
        blobs = self.storage.containers[SOURCE].blobs if SOURCE in self.storage.containers else {}
        found += [f"blob {name}" for name in blobs | self._sources if blobs.get(name) != self._sources.get(name)]
        return found + [name for name in self._foreign if name not in there]

    def _of_runs(self, flow_run_ids: Sequence[str]) -> dict[str, dict[str, str]]:
        """Return the resources named after flow runs, with their metadata."""
        prefixes = tuple(f"topn-{flow_run_id.replace('-', '')}-" for flow_run_id in flow_run_ids)
        return {
            name: metadata
            for name, metadata in self._everything().items()
            if name.partition(" ")[2].startswith(prefixes) and name not in self._foreign
        }

    def _everything(self) -> dict[str, dict[str, str]]:
        """Return all resources, with their metadata."""
        store = self._batch.store
        found: dict[str, dict[str, str]] = {}
        for kind, records in (("job", store.jobs.values()), ("pool", store.pools.values())):
            for record in records:
                items = record.spec.get("metadata") or ()
                found[f"{kind} {record.id}"] = {item["name"]: item["value"] for item in items}
        found |= {f"container {name}": container.metadata for name, container in self.storage.containers.items()}
        return found

    # Blobs of other users.

    def _put_blob(self, file: FileSpec, content: bytes) -> None:
        """Upload a blob, or delete it if that is its fate and it exists."""
        name = f"{FOLDER}{file.name}"
        is_deleted = file.fate == "deleted" and name in self._sources
        method = "DELETE" if is_deleted else "PUT"
        answer = self.storage.answer(self._signed(method, f"/{SOURCE}/{quote(name)}", b"" if is_deleted else content))
        if answer.status not in (HTTPStatus.CREATED, HTTPStatus.ACCEPTED):
            raise RuntimeError(f"{method} {name}: {answer.status}")
        self._sources.pop(name, None)
        if not is_deleted:
            self._sources[name] = content

    def _signed(self, method: str, path: str, body: bytes = b"") -> Request:
        headers = {"authorization": f"SharedKey {STORAGE_ACCOUNT}:", "x-ms-blob-type": "BlockBlob"}
        return Request(method, self.storage.endpoint + path, headers, body)

    def _send_of_nodes(self, request: Request) -> Response:
        """Send a request of a node, which may not read forbidden blobs."""
        path = unquote(urlsplit(request.url).path)
        if any(path.endswith(f"/{SOURCE}/{FOLDER}{name}") for name in self._forbidden):
            return Response(HTTPStatus.FORBIDDEN, {"x-ms-error-code": "AuthorizationFailure"})
        return self._wire.send(request)

    # The environment of the clients.

    @contextlib.contextmanager
    def _environment(self) -> Iterator[None]:
        patches = self._patches
        work = self._folder / "work"
        (work / "in").mkdir(parents=True)
        self.storage.answer(self._signed("PUT", f"/{SOURCE}?restype=container"))
        for file in self.plan.files:
            if file.is_blob:
                self._put_blob(file, file.content)
            else:
                path = work / "in" / file.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(file.content)
            self.outcome.contents[file.name] = [file.content]
        patches.chdir(work)
        for name in [name for name in os.environ if name.startswith(("TOPN_", "PREFECT_"))]:
            patches.delenv(name)
        variables = {
            "TOPN_BATCH_ENDPOINT": BATCH_ENDPOINT,
            "TOPN_BATCH_ACCOUNT": DEVELOPMENT_ACCOUNT,
            "TOPN_BATCH_KEY": DEVELOPMENT_KEY,
            "TOPN_STORAGE_ENDPOINT": self.storage.endpoint,
            "TOPN_STORAGE_ACCOUNT": STORAGE_ACCOUNT,
            "TOPN_STORAGE_KEY": STORAGE_KEY,
            "TOPN_STATE": str(self._folder / "state"),
        }
        for name, value in variables.items():
            patches.setenv(name, value)
        threads = self.world.threading()
        patches.setattr(sdk_poller, "threading", threads)
        patches.setattr(tasks.model.corpus, "MAX_WIDTH", self.plan.width)
        patches.setattr(tasks.report.artifacts, "Thread", threads.Thread)
        patches.setattr(tasks.report.artifacts, "Event", threads.Event)
        patches.setattr(signs_of_life, "Thread", threads.Thread)
        patches.setattr(signs_of_life, "Event", threads.Event)
        # Drawing takes longer than a whole history, and compiling even longer. Other tests cover both.
        patches.setattr(tasks.report.artifacts, "_pictures", lambda _: None)
        patches.setattr(tasks.report.artifacts, "_import_charts", lambda: None)
        # Without a server, Prefect would start one. An integration test covers the events.
        patches.setattr(tasks.report.events, "emit_event", lambda *_, **__: None)
        patches.setattr(tasks.workload.task_script_package, "_compiled", lambda _: {})
        # A run would start its servers as processes.
        patches.setattr(flows.topn, "PREFECT_API_URL", SimpleNamespace(value=lambda: API_URL))
        patches.setattr(flows.cli.run, "connected_until_exit", lambda **_: contextlib.nullcontext())
        patches.setattr(flows.cli.sweep, "use_make_up_servers", lambda _: None)
        patches.setattr(flows.cli.sweep, "prefect_api_url", lambda: "http://127.0.0.1:4200/api")
        for log, level in ((logging.getLogger(), logging.WARNING), (prefect_logger, logging.INFO)):
            patches.setattr(log, "handlers", [logging.StreamHandler(self._logs)])
            patches.setattr(log, "level", level)
        with self._engine.in_place(patches):
            yield


def _store_data(life: Life, data: object) -> None:
    """Store the report, or the error, of a final state in `life`."""
    data = data.report if isinstance(data, FilesFailedError) else data
    if isinstance(data, RunReport):
        life.report = data
    elif isinstance(data, BaseException):
        life.error = life.error or data


def _marks(name: str, expires_at: str) -> dict[str, str]:
    return {"owner": "topn", "flow_run_id": str(UUID(name.split("-")[1])), "expires_at": expires_at}


def _release_locks() -> None:
    """Release the file locks of a process that has ended, as the kernel does."""
    for descriptor in signs_of_life._locked.values():
        os.close(descriptor)
    signs_of_life._locked.clear()


def _is_ours(name: str, flow_run_ids: Sequence[str]) -> bool:
    return any(flow_run_id.replace("-", "") in name for flow_run_id in flow_run_ids)


_POOL = {
    "vmSize": "standard_d2s_v3",
    "virtualMachineConfiguration": {
        "imageReference": {"publisher": "canonical", "offer": "ubuntu-24_04-lts", "sku": "server", "version": "latest"},
        "nodeAgentSKUId": "batch.node.ubuntu 24.04",
    },
    "taskSlotsPerNode": 2,
}


def _job_operation(operation: str, body: object = None) -> Callable[[_History, list[Any], list[Any]], bool]:
    def act(history: _History, jobs: list[Any], pools: list[Any]) -> bool:
        del pools
        return [history.send_as_other("POST", f"/jobs/{job.id}/{operation}", body) for job in jobs[-1:]] == [
            HTTPStatus.ACCEPTED
        ]

    return act


def _delete_job(history: _History, jobs: list[Any], pools: list[Any]) -> bool:
    del pools
    return [history.send_as_other("DELETE", f"/jobs/{job.id}") for job in jobs[-1:]] == [HTTPStatus.ACCEPTED]


def _delete_pool(history: _History, jobs: list[Any], pools: list[Any]) -> bool:
    del jobs
    return [history.send_as_other("DELETE", f"/pools/{pool.id}") for pool in pools[-1:]] == [HTTPStatus.ACCEPTED]


def _delete_container(history: _History, jobs: list[Any], pools: list[Any]) -> bool:
    """Delete the input container of the run."""
    del jobs, pools
    containers = history.storage.containers
    names = [name for name in containers if name.endswith("-in") and history.is_of_run(f"container {name}")]
    return [containers.pop(name) for name in names] != []


def _pause_job(history: _History, jobs: list[Any], pools: list[Any]) -> bool:
    """Disable a job for 200 s."""
    if not _job_operation("disable", {"disableTasks": "requeue"})(history, jobs, pools):
        return False
    name = jobs[-1].id

    def enable() -> None:
        history.world.sleep(200)
        history.send_as_other("POST", f"/jobs/{name}/enable", {})

    history.world.spawn("enable", history.service, enable)
    return True


def _task_operation(method: str, suffix: str = "") -> Callable[[_History, list[Any], list[Any]], bool]:
    def act(history: _History, jobs: list[Any], pools: list[Any]) -> bool:
        del pools
        tasks_of_job = [(job, task) for job in jobs[-1:] for task in job.tasks.values() if task.state != "completed"]
        return [
            history.send_as_other(method, f"/jobs/{job.id}/tasks/{task.id}{suffix}") for job, task in tasks_of_job[:1]
        ] in (
            [HTTPStatus.OK],
            [HTTPStatus.NO_CONTENT],
        )

    return act


_OPERATIONS: Mapping[str, Callable[[_History, list[Any], list[Any]], bool]] = {
    "terminate_job": _job_operation("terminate"),
    "disable_job": _job_operation("disable", {"disableTasks": "requeue"}),
    "pause_job": _pause_job,
    "delete_job": _delete_job,
    "delete_pool": _delete_pool,
    "delete_container": _delete_container,
    "delete_task": _task_operation("DELETE"),
    "terminate_task": _task_operation("POST", "/terminate"),
}
