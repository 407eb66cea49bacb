"""Scenarios written by hand: faults that the product did not survive."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from simulation.history import Outcome
from simulation.invariants import violations
from simulation.plan import Act, Exit, FileSpec, Plan, WireFault

# The client dies before it has collected a result. The same command runs again.
KILLED_BEFORE_COLLECTION = (Exit(kind="killed", at=0, operation="get_blob", then="again"), Exit())

TEXTS = tuple(FileSpec(name=f"{number}.txt", content=f"word {number} word".encode()) for number in range(3))


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A plan, and the checks after its history.

    Attributes:
        problem: The current or former problem.
        check: Lists the violations.
    """

    problem: str
    plan: Plan
    check: Callable[[Outcome], Iterable[str]] = violations


BLOBS = tuple(
    FileSpec(name=f"{number}.txt", content=f"word {number} word".encode(), is_blob=True) for number in range(4)
)


def _collected_and_swept(outcome: Outcome) -> list[str]:
    return [
        *violations(outcome),
        *(f"{digest[:8]} was counted {times} times" for digest, times in outcome.counted.items() if times > 1),
        *(f"the next run left {name}" for name in outcome.leftovers_of_dead),
    ]


def violations_and_failures(outcome: Outcome) -> list[str]:
    """List the violations, and the errors of files that failed."""
    return [*violations(outcome), *(str(file.error) for file in outcome.lives[0].report.failed)]


def asleep_for_a_day(*, at: int, wire: tuple[WireFault, ...] = ()) -> Plan:
    """Return a plan in which the machine sleeps until signatures have expired, and nodes start only afterwards."""
    seconds = 26 * 3600.0
    return Plan(
        files=TEXTS,
        deployed=True,
        timeout_minutes=3000,
        wire=wire,
        acts=(
            Act(name="allocation_fails", at=1, options={"code": "AllocationFailed"}, until=seconds + 300),
            Act(name="suspend", at=at, options={"seconds": seconds}),
        ),
        pace="fast",
        dead_run=False,
    )


# Fixed faults. A seed replays on one version only, but a scenario on all.
FIXED: Mapping[str, Scenario] = {
    "copy deleted": Scenario(
        problem="One of two files with the same content was deleted, and both failed in its name.",
        plan=Plan(
            files=(
                FileSpec(name="here.txt", content=b"the same"),
                FileSpec(name="gone.txt", content=b"the same", fate="deleted", at=12),
            ),
            pace="instant",
        ),
    ),
    "copies with invalid text": Scenario(
        problem="The first of two files with the same content failed in the name of the second.",
        plan=Plan(
            files=(FileSpec(name="one.txt", content=b"\xff"), FileSpec(name="two.txt", content=b"\xff")), pace="instant"
        ),
        check=lambda outcome: [
            *violations(outcome),
            *(
                f"{file.file.name} failed in the name of another file: {file.error}"
                for life in outcome.lives
                for file in (life.report.failed if life.report else ())
                if file.error is None or file.file.name not in file.error.message
            ),
        ],
    ),
    "interrupted during cleanup": Scenario(
        problem="A run with failed files was interrupted during its cleanup: its results were not printed.",
        plan=Plan(
            files=(FileSpec(name="bad.txt", content=b"\xff"),),
            wire=(WireFault(kind="late", service="batch", operation="delete_job", delay=3.0),),
            exits=(Exit(kind="interrupted", at=0, operation="delete_job"),),
            pace="instant",
            dead_run=False,
        ),
    ),
    "all files changed": Scenario(
        problem="Chunks without staged files shared a cache key, so all but one failed for a wrong reason.",
        plan=Plan(
            files=tuple(FileSpec(name=f"{n}.txt", content=b"text %d" % n, fate="changed", at=11) for n in range(4)),
            pace="instant",
            dead_run=False,
        ),
    ),
    "asleep after signing": Scenario(
        problem="The machine slept after it signed requests: Batch rejected their date, and the run failed.",
        plan=Plan(
            files=TEXTS,
            deployed=True,
            timeout_minutes=3000,
            # Late requests are in flight when the machine falls asleep.
            wire=(WireFault(kind="late", service="batch", first=14, times=20, delay=3.0),),
            acts=(Act(name="suspend", at=18, options={"seconds": 26 * 3600.0}),),
            pace="fast",
            dead_run=False,
        ),
    ),
    "asleep before creation of pool": Scenario(
        problem="The machine slept for a day before it created the pool: the start task's signatures had expired.",
        plan=asleep_for_a_day(at=11),
        check=violations_and_failures,
    ),
    "asleep between attempts to submit": Scenario(
        problem="A response was lost before the machine slept for a day. The repeated step renewed no signatures.",
        plan=asleep_for_a_day(
            at=22,
            wire=(WireFault(kind="half", service="batch", operation="create_task_collection", times=3, after=True),),
        ),
        check=violations_and_failures,
    ),
    "retried shortly before deadline": Scenario(
        problem="A retry with less than a minute left rightly counts again, but an invariant forbade it.",
        plan=Plan(
            files=TEXTS,
            deployed=True,
            timeout_minutes=5,
            wire=(WireFault(kind="status", service="batch", operation="list_tasks"),),
            exits=(Exit(kind="killed", at=80, then="retried"), Exit()),
            pace="instant",
            dead_run=False,
        ),
    ),
    "pool deletion rejected": Scenario(
        problem="A pool that cannot be deleted stays silently, with exit status 0.",
        plan=Plan(
            files=TEXTS, wire=(WireFault(kind="refused", service="batch", operation="delete_pool"),), dead_run=False
        ),
    ),
    "container deletion rejected": Scenario(
        problem="A container with a lease stays silently, with exit status 0.",
        plan=Plan(
            files=TEXTS,
            wire=(WireFault(kind="refused", service="storage", operation="delete_container"),),
            dead_run=False,
        ),
    ),
    "storage rejects everything": Scenario(
        problem="Storage starts to reject all requests: job and pool stay although Batch is healthy.",
        plan=Plan(files=TEXTS, wire=(WireFault(kind="refused", service="storage", first=40),)),
    ),
    "Prefect server dies": Scenario(
        problem="The Prefect server is gone when the run ends: no hook runs, and all resources stay.",
        plan=Plan(files=TEXTS, prefect_fails=("set_final_state", "create_artifact"), pace="instant"),
    ),
    "cleanup cannot be recorded": Scenario(
        problem="The record of the cleanup cannot be written: nothing is deleted.",
        plan=Plan(files=TEXTS, prefect_fails=("create_artifact",), pace="instant"),
    ),
    "flow retries": Scenario(
        problem="Prefect's own retries are on and a file fails: the run is never retried and never cleaned up.",
        plan=Plan(files=(*TEXTS, FileSpec(name="bad.txt", content=b"\xff")), flow_retries=1, pace="instant"),
    ),
    "dead run with kept job counted again": Scenario(
        problem="A new run counted files again that a dead run with --keep-job had counted.",
        plan=Plan(
            files=TEXTS,
            keep=frozenset({"job"}),
            exits=KILLED_BEFORE_COLLECTION,
            pace="instant",
            dead_run=False,
        ),
        check=lambda outcome: [problem for problem in _collected_and_swept(outcome) if "left job" not in problem],
    ),
    "dead run counted again": Scenario(
        problem="A new run counted files again that a dead run had counted, and swept that run only after its deadline.",
        plan=Plan(files=TEXTS, exits=KILLED_BEFORE_COLLECTION, pace="instant", dead_run=False),
        check=_collected_and_swept,
    ),
    "pack of dead run counted again": Scenario(
        problem="A new run counted a pack again that a dead run had counted.",
        plan=Plan(
            files=TEXTS,
            files_per_task=2,
            exits=KILLED_BEFORE_COLLECTION,
            pace="instant",
            dead_run=False,
        ),
        check=_collected_and_swept,
    ),
    "invalid job list in cleanup": Scenario(
        problem="The cleanup gets HTML with status 200 as the job list: all resources stay, with exit status 0.",
        plan=Plan(
            files=TEXTS,
            wire=(WireFault(kind="html", service="batch", operation="list_jobs", first=20, times=1),),
            pace="instant",
        ),
    ),
    "upload rejected": Scenario(
        problem="One upload is rejected permanently: the whole run fails with an unreadable message.",
        plan=Plan(
            files=TEXTS,
            wire=(WireFault(kind="refused", service="storage", operation="put_blob", first=12, times=1),),
            pace="instant",
            dead_run=False,
        ),
    ),
    "input container deleted": Scenario(
        problem="Another user deletes the input container: the run fails with an unreadable message.",
        plan=Plan(files=TEXTS, acts=(Act(name="delete_container", at=12),), pace="instant", dead_run=False),
    ),
    "invalid task counts": Scenario(
        problem="HTML with status 200 instead of task counts ends the run with a JSON error.",
        plan=Plan(
            files=TEXTS,
            wire=(WireFault(kind="html", service="batch", operation="get_job_task_counts", times=1),),
            pace="instant",
        ),
    ),
    "truncated response": Scenario(
        problem="A truncated list of Batch tasks ends the run with a JSON error.",
        plan=Plan(
            files=TEXTS,
            wire=(WireFault(kind="half", service="batch", operation="list_tasks", times=1, after=True),),
            pace="instant",
        ),
    ),
    "results store fails": Scenario(
        problem="If the results store cannot be written, counted files fail.",
        plan=Plan(files=TEXTS, store_fails=True, pace="instant"),
    ),
    "kept result changed": Scenario(
        problem="A stored result with a changed count is accepted.",
        plan=Plan(files=TEXTS, damages_store=True, exits=(Exit(then="again"), Exit()), pace="instant"),
    ),
    "clock an hour ahead": Scenario(
        problem="With the services' clock 70 minutes ahead, no node starts, and the message does not name the clock.",
        plan=Plan(files=TEXTS, skew=4200.0, deployed=True, timeout_minutes=21),
    ),
    "clock an hour behind": Scenario(
        problem="With the services' clock 70 minutes behind, Batch rejected the date of each request.",
        plan=Plan(files=TEXTS, skew=-4200.0, deployed=True, timeout_minutes=21),
    ),
    "deadline with wrong clock": Scenario(
        problem="A deadline by the clock of the client passed an hour too late, or too early, for the service.",
        plan=Plan(
            files=TEXTS,
            skew=4200.0,
            deployed=True,
            timeout_minutes=5,
            acts=(Act(name="endless_task", at=1, options={"task": "*"}),),
        ),
    ),
}
