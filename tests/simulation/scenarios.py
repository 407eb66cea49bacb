"""Histories that were written by hand: what the simulation found, and what the product does not survive yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from simulation.history import Outcome
from simulation.invariants import broken
from simulation.plan import Act, Ending, FileSpec, Plan, WireFault

TEXTS = tuple(FileSpec(name=f"{number}.txt", content=f"word {number} word".encode()) for number in range(3))


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A history, and what must hold after it beside the usual.

    Attributes:
        says: What is wrong with it today, or was.
        check: Lists what does not hold.
    """

    says: str
    plan: Plan
    check: Callable[[Outcome], Iterable[str]] = broken


def _counted_once(outcome: Outcome) -> list[str]:
    return [f"{digest[:8]} was counted {times} times" for digest, times in outcome.counted.items() if times > 1]


def _nothing_of_the_dead(outcome: Outcome) -> list[str]:
    return [f"the next run left {name}" for name in outcome.left_of_dead]


# What was found by a seed and fixed: a seed is good for one version only, a scenario for ever.
FIXED: Mapping[str, Scenario] = {
    "copy deleted": Scenario(
        says="Of two files with the same content one was deleted, and both failed in its name.",
        plan=Plan(
            files=(
                FileSpec(name="here.txt", content=b"the same"),
                FileSpec(name="gone.txt", content=b"the same", fate="deleted", at=12),
            ),
            pace="instant",
        ),
    ),
    "copies that are not text": Scenario(
        says="Of two files with the same content the first failed in the name of the second.",
        plan=Plan(
            files=(FileSpec(name="one.txt", content=b"\xff"), FileSpec(name="two.txt", content=b"\xff")), pace="instant"
        ),
        check=lambda outcome: [
            *broken(outcome),
            *(
                f"{file.file.name} failed in another name: {file.error}"
                for life in outcome.lives
                for file in (life.report.failed if life.report else ())
                if file.error is None or file.file.name not in file.error.message
            ),
        ],
    ),
    "interrupted while cleaning up": Scenario(
        says="A run with failed files was interrupted during its cleanup: its results were not printed.",
        plan=Plan(
            files=(FileSpec(name="bad.txt", content=b"\xff"),),
            wire=(WireFault(kind="late", service="batch", operation="delete_job", delay=3.0),),
            endings=(Ending(kind="interrupted", at=0, operation="delete_job"),),
            pace="instant",
            dead_run=False,
        ),
    ),
    "all files changed": Scenario(
        says="Chunks of which nothing could be staged shared a cache key, and all but one had no true reason.",
        plan=Plan(
            files=tuple(FileSpec(name=f"{n}.txt", content=b"text %d" % n, fate="changed", at=11) for n in range(4)),
            pace="instant",
            dead_run=False,
        ),
    ),
    "asleep after a request was signed": Scenario(
        says="The machine slept with signed requests on their way: Batch refused their date, and the run failed.",
        plan=Plan(
            files=TEXTS,
            deployed=True,
            timeout_minutes=3000,
            # Requests that are not answered at once are on their way when the machine falls asleep.
            wire=(WireFault(kind="late", service="batch", first=14, times=20, delay=3.0),),
            acts=(Act(name="suspend", at=18, options={"seconds": 26 * 3600.0}),),
            pace="fast",
            dead_run=False,
        ),
    ),
    "repeated shortly before its deadline": Scenario(
        says="A repeat with less than a minute left begins anew and counts again, as it must; no invariant knew of it.",
        plan=Plan(
            files=TEXTS,
            deployed=True,
            timeout_minutes=5,
            wire=(WireFault(kind="status", service="batch", operation="list_tasks"),),
            endings=(Ending(kind="killed", at=80, then="retried"), Ending()),
            pace="instant",
            dead_run=False,
        ),
    ),
}

# What the product does not survive yet. Each breaks an invariant today; the generator leaves its kind out.
NOT_YET: Mapping[str, Scenario] = {
    "invalid response to a list in cleanup": Scenario(
        says="HTML with status 200 as the job list of the cleanup: everything stays, with exit status 0.",
        plan=Plan(
            files=TEXTS,
            wire=(WireFault(kind="html", service="batch", operation="list_jobs", first=20, times=1),),
            pace="instant",
        ),
    ),
    "deletion refused": Scenario(
        says="A pool that cannot be deleted stays without a word, with exit status 0.",
        plan=Plan(
            files=TEXTS, wire=(WireFault(kind="refused", service="batch", operation="delete_pool"),), dead_run=False
        ),
    ),
    "deletion of a container refused": Scenario(
        says="A container with a lease stays without a word, with exit status 0.",
        plan=Plan(
            files=TEXTS,
            wire=(WireFault(kind="refused", service="storage", operation="delete_container"),),
            dead_run=False,
        ),
    ),
    "one service refuses everything": Scenario(
        says="Storage refuses everything from some instant on: job and pool stay although Batch is healthy.",
        plan=Plan(files=TEXTS, wire=(WireFault(kind="refused", service="storage", first=40),)),
    ),
    "Prefect server dies": Scenario(
        says="The Prefect server is gone when the run ends: no hook runs, and everything stays.",
        plan=Plan(files=TEXTS, prefect_fails=("set_final_state", "create_artifact"), pace="instant"),
    ),
    "cleanup cannot be recorded": Scenario(
        says="The record of the cleanup cannot be written: nothing is deleted.",
        plan=Plan(files=TEXTS, prefect_fails=("create_artifact",), pace="instant"),
    ),
    "flow retries": Scenario(
        says="Prefect's own retries are on and a file fails: the run is never retried and never cleaned up.",
        plan=Plan(files=(*TEXTS, FileSpec(name="bad.txt", content=b"\xff")), flow_retries=1, pace="instant"),
    ),
    "dead run": Scenario(
        says="A run that died on a server of its own is only swept after its deadline.",
        plan=Plan(files=TEXTS, endings=(Ending(kind="killed", at=40, then="again"), Ending()), dead_run=False),
        check=_nothing_of_the_dead,
    ),
    "dead run counted again": Scenario(
        says="A new run counts again what a dead run has counted.",
        plan=Plan(files=TEXTS, endings=(Ending(kind="killed", at=130, then="again"), Ending()), dead_run=False),
        check=_counted_once,
    ),
    "upload refused": Scenario(
        says="One upload is refused for good: the whole run fails, for a reason that nobody can read.",
        plan=Plan(
            files=TEXTS,
            wire=(WireFault(kind="refused", service="storage", operation="put_blob", first=12, times=1),),
            pace="instant",
            dead_run=False,
        ),
    ),
    "input container deleted": Scenario(
        says="Somebody deletes the container with the inputs: the run fails for a reason that nobody can read.",
        plan=Plan(files=TEXTS, acts=(Act(name="delete_container", at=12),), pace="instant", dead_run=False),
    ),
    "invalid response to task counts": Scenario(
        says="HTML with status 200 as task counts ends the run with a JSON error.",
        plan=Plan(
            files=TEXTS,
            wire=(WireFault(kind="html", service="batch", operation="get_job_task_counts", times=1),),
            pace="instant",
        ),
    ),
    "half a response": Scenario(
        says="A list of Batch tasks that is cut off ends the run with a JSON error.",
        plan=Plan(
            files=TEXTS,
            wire=(WireFault(kind="half", service="batch", operation="list_tasks", times=1, after=True),),
            pace="instant",
        ),
    ),
    "results store fails": Scenario(
        says="A results store that cannot be written fails files that were counted.",
        plan=Plan(files=TEXTS, store_fails=True, pace="instant"),
    ),
    "kept result changed": Scenario(
        says="A kept result with another count is taken for what was counted.",
        plan=Plan(files=TEXTS, damages_store=True, endings=(Ending(then="again"), Ending()), pace="instant"),
    ),
    "clock an hour ahead": Scenario(
        says="With the services' clock 70 minutes ahead, no node comes, and the reason is not the clock.",
        plan=Plan(files=TEXTS, skew=4200.0, deployed=True, timeout_minutes=21),
    ),
}
