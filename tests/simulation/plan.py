"""The plan of a history: files, options, faults, and how each client exits.

A scenario is a plan written by hand; `plan_of` creates a plan from a seed.
"""

from __future__ import annotations

import gzip
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from simulation.wire import STATUSES


@dataclass(frozen=True, kw_only=True)
class FileSpec:
    """One input file.

    Attributes:
        is_blob: Whether it is in Blob Storage.
        fate: "stays", "changed" or "deleted"; "forbidden" if nodes cannot read the blob any more.
        at: The number of the request before which that happens.
    """

    name: str
    content: bytes
    is_blob: bool = False
    fate: str = "stays"
    at: int = 0


@dataclass(frozen=True, kw_only=True)
class WireFault:
    """A fault of requests.

    Attributes:
        kind: As in `wire.Fault`.
        service: "batch", "storage" or "*".
        operation: A name, or "*".
        first: The number of the first request that can fail.
        times: Maximum number of requests that fail; None means no limit.
        seconds: Duration in virtual time from the first failure; None means no end.
        chance: Probability that a matching request fails.
    """

    kind: str
    service: str = "*"
    operation: str = "*"
    first: int = 1
    times: int | None = None
    seconds: float | None = None
    chance: float = 1.0
    after: bool = False
    status: int = 503
    delay: float = 0.0
    retry_after: int | None = None


@dataclass(frozen=True, kw_only=True)
class Act:
    """An operation of another user, or a fault of nodes, before a request.

    Attributes:
        name: A fault of localbatch's nodes, or an operation such as "terminate_job".
        at: The number of the request.
        options: Options of a fault of localbatch.
        until: Duration of a permanent fault in seconds; None means no end.
    """

    name: str
    at: int
    options: Mapping[str, Any] = field(default_factory=dict)
    until: float | None = None


@dataclass(frozen=True, kw_only=True)
class Exit:
    """How a client exits.

    Attributes:
        kind: "ends" by itself, "killed" or "interrupted".
        at: The number of the request, counted from the start of this client; 0 if `operation` selects it.
        operation: The operation that selects the request instead of a number.
        after: Whether the request takes effect first.
        then: The next client: "again" (the same command), "retried" (by Prefect) or "gone".
    """

    kind: str = "ends"
    at: int = 0
    operation: str = ""
    after: bool = False
    then: str = "gone"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The plan of one history.

    Attributes:
        deployed: Whether a worker runs the flow, instead of the command line.
        pace: Duration of the service's transitional states: instant, fast or real.
        task_seconds: Minimum and maximum duration of a Batch task.
        skew: Seconds that the services' clock is ahead of the client's.
        prefect_fails: Operations of the Prefect API that fail.
        store_fails: Whether the results store cannot be written.
        damages_store: Whether stored results are changed after each client.
        flow_retries: Maximum number of flow retries by Prefect's own settings.
        foreign: Resource of another user under the name of a deployed run: "job", "pool", "container" or "".
        existing_pool: Whether the run uses an existing pool.
        corpus: Whether the run merges its files.
        width: Maximum number of files and merges of a merge, approximately.
        dead_run: Whether another run died long ago and left all its resources.
    """

    seed: int = 0
    files: tuple[FileSpec, ...]
    num_words: int = 3
    ignore_case: bool = False
    encoding: str = "utf-8"
    files_per_task: int | None = None
    refresh: bool = False
    corpus: bool = True
    width: int = 100
    keep: frozenset[str] = frozenset()
    deployed: bool = False
    timeout_minutes: float = 60
    nodes: int = 2
    spot_nodes: int = 0
    existing_pool: bool = False
    dead_run: bool = True
    foreign: str = ""
    pace: str = "real"
    task_seconds: tuple[float, float] = (0.5, 20.0)
    skew: float = 0.0
    wire: tuple[WireFault, ...] = ()
    acts: tuple[Act, ...] = ()
    prefect_fails: tuple[str, ...] = ()
    store_fails: bool = False
    damages_store: bool = False
    flow_retries: int = 0
    exits: tuple[Exit, ...] = (Exit(),)


WORDS = ("the", "of", "and", "to", "The", "straße", "STRASSE", "kot", "кот", "日本", "don't", "--", "x", "y", "z'")
BAD = (b"one two\xff three", b"one\x00two", "d\xe9j\xe0 vu".encode("latin-1"))

# A simple run sends 60 to 200 requests. In slow runs, most of them are polls.
REQUESTS = 80

# Faults that only delay a run, because requests are retried until they succeed.
TRANSIENT = ("status", "cut", "late", "lag", "html", "half")


def plan_of(seed: int) -> Plan:
    """Create the plan of a seed."""
    chance = random.Random(f"plan {seed}")
    deployed = chance.random() < 0.4
    exits = _exits(chance, deployed=deployed)
    wire = tuple(_transient(chance) for _ in range(chance.choice((0, 0, 1, 1, 2, 3))))
    # A run from the command line has one hour, so a stalled run would send thousands of requests.
    acts = tuple(_act(chance, may_stall=deployed) for _ in range(chance.choice((0, 0, 0, 1, 1, 2))))
    long = deployed and chance.random() < 0.1
    if long:
        # The client's machine sleeps for a day, and nodes start only after the first signatures have expired.
        hours = chance.uniform(13, 40)
        asleep = Act(name="suspend", at=chance.randint(20, 60), options={"seconds": hours * 3600})
        stalls = Act(name="allocation_fails", at=1, options={"code": "AllocationFailed"}, until=hours * 3600 + 300)
        acts, exits = (stalls, asleep), (Exit(),)
    elif deployed and chance.random() < 0.08:
        wire = (*wire, _blinding_fault(chance))
    retried = next((exit_ for exit_ in exits if exit_.kind == "killed" and exit_.then == "retried"), None)
    if retried is not None and not long and chance.random() < 0.5:
        # Another user ends the job or pool that the retry would adopt.
        at = chance.randint(20, 60)
        acts = (*acts, Act(name=chance.choice(("terminate_job", "terminate_job", "delete_job", "delete_pool")), at=at))
        soon = replace(retried, at=at + chance.randint(1, 6))
        exits = (*(soon if exit_ is retried else exit_ for exit_ in exits),)
    # Of its own, so that the other parts of a plan do not depend on it.
    form = random.Random(f"form {seed}")
    encoding = form.choice((*("utf-8",) * 6, "utf-16", "utf-32"))
    merging = random.Random(f"merging {seed}")
    return Plan(
        seed=seed,
        files=_placed(_encoded(_files(chance), encoding, form), random.Random(f"place {seed}")),
        encoding=encoding,
        num_words=chance.choice((1, 3, 3, 10)),
        ignore_case=chance.random() < 0.2,
        files_per_task=chance.choice((None, None, None, 2, 3, 8)),
        refresh=chance.random() < 0.1,
        corpus=merging.random() < 0.8,
        width=merging.choice((2, 3, 100)),
        keep=frozenset(kind for kind in ("containers", "job", "pool") if chance.random() < 0.07),
        deployed=deployed,
        timeout_minutes=chance.uniform(2880, 4320) if long else chance.choice((2, 5, 5, 10)) if deployed else 60,
        nodes=chance.choice((1, 2, 2, 4)),
        spot_nodes=chance.choice((0, 0, 0, 2)) if deployed else 0,
        existing_pool=not long and chance.random() < 0.15,
        foreign=chance.choice(("job", "pool", "container")) if deployed and chance.random() < 0.06 else "",
        # Slow transitions cost many polls, and one history per pace covers as much as ten.
        pace=chance.choice(("real", *("fast",) * 5, *("instant",) * 4)),
        task_seconds=chance.choice(((0.1, 1.0), (0.1, 1.0), (0.1, 1.0), (0.5, 20.0), (30.0, 120.0))),
        dead_run=chance.random() < 0.3,
        skew=chance.choice((0.0, 0.0, 0.0, chance.uniform(-100, 100), chance.choice(SKEWS))),
        wire=wire,
        acts=acts,
        prefect_fails=chance.choice(((), (), (), ("update_flow_run",), ("update_artifact",))),
        store_fails=chance.random() < 0.1,
        damages_store=chance.random() < 0.2,
        exits=exits,
    )


def _files(chance: random.Random) -> tuple[FileSpec, ...]:
    files: list[FileSpec] = []
    for number in range(chance.randint(1, 8)):
        if files and chance.random() < 0.15:
            content = chance.choice(files).content
        elif chance.random() < 0.12:
            content = chance.choice(BAD)
        else:
            content = " ".join(chance.choices(WORDS, k=chance.choice((0, 1, 5, 50, 400)))).encode()
        fate = "stays" if chance.random() < 0.9 else chance.choice(("changed", "deleted"))
        at = chance.randint(1, REQUESTS // 2)
        name = chance.choice((f"{number}.txt", f"{number}.txt", f"deep/er/{number}.md", f"nä me {number}.txt"))
        files.append(FileSpec(name=name, content=content, fate=fate, at=at if fate != "stays" else 0))
    return tuple(files)


def _encoded(files: tuple[FileSpec, ...], encoding: str, form: random.Random) -> tuple[FileSpec, ...]:
    """Encode the texts, and compress some of them; equal contents stay equal."""
    changed = {}
    for content in dict.fromkeys(file.content for file in files):
        data = content if content in BAD else content.decode().encode(encoding)
        changed[content] = ("", data) if form.random() < 0.8 else (".gz", gzip.compress(data, mtime=0))
    forms = [changed[file.content] for file in files]
    return tuple(
        replace(file, name=file.name + suffix, content=content)
        for file, (suffix, content) in zip(files, forms, strict=True)
    )


def _placed(files: tuple[FileSpec, ...], place: random.Random) -> tuple[FileSpec, ...]:
    """Move some or all of the files into Blob Storage."""
    share = place.choice((0.0, 0.0, 0.0, 0.5, 1.0))
    found = []
    for file in files:
        is_blob = place.random() < share
        fate = "forbidden" if is_blob and file.fate != "stays" and place.random() < 0.3 else file.fate
        found.append(replace(file, is_blob=is_blob, fate=fate))
    return tuple(found)


# Operations that a fault can select, in the order of a run.
OPERATIONS = (
    ("batch", "list_jobs"),
    ("batch", "list_supported_images"),
    ("storage", "put_container"),
    ("batch", "create_pool"),
    ("batch", "create_job"),
    ("storage", "get_container_list"),
    ("storage", "put_blob"),
    ("batch", "create_task_collection"),
    ("batch", "get_job_task_counts"),
    ("batch", "list_tasks"),
    ("batch", "get_pool"),
    ("storage", "get_blob"),
    ("batch", "delete_job"),
    ("batch", "delete_pool"),
    ("storage", "delete_container"),
)

# Less than the number of retries, so that a request still succeeds if it meets another fault, too.
MAX_BURST = 5


def _transient(chance: random.Random) -> WireFault:
    kind = chance.choice(TRANSIENT)
    shape = chance.choice(("spread", "spread", "burst", "operation"))
    service, operation = chance.choice(("batch", "storage", "*")), "*"
    if shape == "operation":
        service, operation = chance.choice(OPERATIONS)
    if kind == "lag":
        service, operation = "batch", "get_job_task_counts"
    return WireFault(
        kind=kind,
        service=service,
        operation=operation,
        first=chance.randint(1, REQUESTS) if shape == "burst" else 1,
        times=None if shape == "spread" else chance.randint(1, MAX_BURST),
        chance=chance.uniform(0.02, 0.2) if shape == "spread" else 1.0,
        after=chance.random() < 0.5,
        status=chance.choice(STATUSES),
        delay=chance.choice((0.5, 3.0, 20.0)),
        retry_after=chance.choice((None, None, 1, 5)),
    )


def _blinding_fault(chance: random.Random) -> WireFault:
    """Create a permanent fault of one operation that watches the job, so that only the deadline ends the run."""
    operation = chance.choice(("get_job_task_counts", "get_job", "list_tasks"))
    return WireFault(kind="status", service="batch", operation=operation, first=chance.randint(1, REQUESTS), status=503)


# Seconds that break signatures, deadlines, or both.
SKEWS = (-4200.0, -840.0, -600.0, 600.0, 840.0, 4200.0)

NODE_ACTS = ("preempt_node", "preempt_node", "make_node_unusable", "vanish_node")
OPERATOR_ACTS = (
    *("terminate_job", "delete_job", "pause_job", "delete_pool", "delete_task", "terminate_task"),
    "delete_container",
)
STALLS = ("disable_job", "start_task_fails", "allocation_fails", "endless_task", "upload_fails", "lose_node")


def _act(chance: random.Random, *, may_stall: bool) -> Act:
    at = chance.randint(8, REQUESTS)
    if chance.random() < (0.4 if may_stall else 0.2):
        name = chance.choice(STALLS)
        options = {"code": "AllocationFailed"} if name == "allocation_fails" else {}
        options = {"task": "*"} if name in {"endless_task", "upload_fails"} else options
        lasts = chance.choice((20.0, 100.0, None) if may_stall else (5.0, 30.0))
        if name in {"disable_job", "lose_node"}:
            return Act(name=name if may_stall else "pause_job", at=at)
        return Act(name=name, at=chance.randint(1, REQUESTS), options=options, until=lasts)
    if chance.random() < 0.5:
        return Act(name=chance.choice(NODE_ACTS), at=at, options={"when": chance.choice(("now", "task_running"))})
    return Act(name=chance.choice(OPERATOR_ACTS), at=at)


def _exits(chance: random.Random, *, deployed: bool) -> tuple[Exit, ...]:
    exits = []
    while len(exits) < 3 and chance.random() < 0.3:
        then = chance.choice(("retried", "retried", "again", "gone") if deployed else ("again", "again", "gone"))
        exits.append(Exit(kind="killed", at=chance.randint(1, REQUESTS), after=chance.random() < 0.5, then=then))
        if then == "gone":
            return tuple(exits)
    if deployed and chance.random() < 0.1:
        exits.append(Exit(then="retried"))
    if not deployed and chance.random() < 0.08:
        return (*exits, Exit(kind="interrupted", at=chance.randint(3, REQUESTS)))
    return (*exits, Exit())
