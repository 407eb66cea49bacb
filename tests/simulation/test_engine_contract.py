"""The same flows on Prefect's engine and on the simulation's engine have the same results."""

from __future__ import annotations

import time
import uuid
from contextlib import ExitStack

import pytest
from prefect import flow, task, unmapped
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import UnfinishedRun
from prefect.runtime import flow_run
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_LOGGING_TO_API_ENABLED,
    PREFECT_RESULTS_LOCAL_STORAGE_PATH,
    temporary_settings,
)
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.utilities.annotations import opaque

from simulation.engine import Engine, Server, replace_everywhere
from simulation.world import World

pytestmark = pytest.mark.xdist_group("engine contract")


class OnPrefect:
    """Runs flows on Prefect, with a separate results folder."""

    def __init__(self, api_url, folder):
        self._settings = {
            PREFECT_API_URL: api_url,
            PREFECT_RESULTS_LOCAL_STORAGE_PATH: folder,
            PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
            PREFECT_LOGGING_TO_API_ENABLED: False,
        }

    def __call__(self, subject, **parameters):
        with temporary_settings(self._settings):
            return subject(**parameters, return_state=True)


class Simulated:
    """Runs flows on the simulation's engine, with one server for all runs."""

    def __init__(self):
        self._server = Server()

    def __call__(self, subject, **parameters):
        world = World(1)
        engine = Engine(world, self._server)
        with ExitStack() as stack:
            patches = stack.enter_context(world.in_control(1))
            stack.enter_context(engine.in_place(patches))
            # The engine replaces imports only in the product's modules, so this module is added here.
            replace_everywhere(patches, flow_run, engine.runtime, packages={"test_engine_contract"})
            return world.run(lambda: subject(**parameters, return_state=True))


@pytest.fixture(params=["prefect", "simulated"])
def run(request, tmp_path):
    """A callable that runs a flow and returns its final state."""
    if request.param == "simulated":
        return Simulated()
    return OnPrefect(request.getfixturevalue("prefect_api"), tmp_path)


@pytest.fixture
def key():
    """A unique cache key."""
    return uuid.uuid4().hex


def flow_named(name, **options):
    """Return a flow decorator with two worker threads."""
    return flow(name=name, task_runner=ThreadPoolTaskRunner(max_workers=2), **options)


def test_flow_state_has_result(run):
    double = task(lambda number: 2 * number, name="double")

    @flow_named("doubles")
    def subject(number: int):
        return double(number)

    state = run(subject, number=4)
    assert (state.is_completed(), state.name, state.result()) == (True, "Completed", 8)


def test_step_error_fails_flow(run):
    @task
    def fails():
        raise LookupError("nothing there")

    @flow_named("fails")
    def subject():
        fails()

    state = run(subject)
    assert state.is_failed()
    assert isinstance(state.result(raise_on_failure=False), LookupError)
    with pytest.raises(LookupError, match="nothing there"):
        state.result()


@pytest.mark.parametrize(
    ("condition", "attempts"),
    [
        (None, 3),
        (lambda *_: False, 1),
        (lambda _task, _run, state: isinstance(state.result(raise_on_failure=False), KeyError), 1),
        (lambda _task, _run, state: isinstance(state.result(raise_on_failure=False), OSError), 3),
        (lambda *_: 1 / 0, 1),
    ],
)
def test_step_is_retried_while_condition_holds(run, condition, attempts):
    made = []

    @task(retries=2, retry_delay_seconds=[0.01, 0.02], retry_condition_fn=condition)
    def fails():
        made.append(1)
        raise OSError("again")

    @flow_named("retries")
    def subject():
        fails()

    assert run(subject).is_failed()
    assert len(made) == attempts


def test_step_succeeds_on_last_retry(run):
    made = []

    @task(retries=2, retry_delay_seconds=0.01, retry_jitter_factor=0.5)
    def flaky():
        made.append(1)
        if len(made) < 3:
            raise OSError("again")
        return "done"

    @flow_named("flaky")
    def subject():
        return flaky.submit().result()

    assert run(subject).result() == "done"


def test_result_is_cached_by_key_across_runs(run, key):
    made = []

    @task(cache_key_fn=lambda context, parameters: f"{context.task.task_key} {key} {parameters['number']}")
    def square(number):
        made.append(number)
        return {"square": number * number}

    @flow_named("squares")
    def subject(numbers: list[int]):
        return [future.result() for future in [square.submit(number) for number in numbers]]

    assert run(subject, numbers=[2, 3]).result() == [{"square": 4}, {"square": 9}]
    assert run(subject, numbers=[3, 4]).result() == [{"square": 9}, {"square": 16}]
    assert sorted(made) == [2, 3, 4]


def test_failure_is_never_cached(run, key):
    made = []

    @task(cache_key_fn=lambda *_: key)
    def fails_once():
        made.append(1)
        if len(made) == 1:
            raise OSError("the first time")
        return "the second time"

    @flow_named("fails once")
    def subject():
        return fails_once()

    assert run(subject).is_failed()
    assert run(subject).result() == "the second time"


def test_step_without_cache_runs_each_time(run):
    made = []

    @task(cache_policy=NO_CACHE, persist_result=False)
    def count():
        made.append(1)
        return len(made)

    @flow_named("counts")
    def subject():
        return [count(), count()]

    assert run(subject).result() == [1, 2]


def test_map_keeps_order_and_passes_unmapped_values(run):
    add = task(lambda left, right, extra: (left, right, tuple(extra)), name="add")

    @flow_named("adds")
    def subject():
        return [future.result() for future in add.map([1, 2, 3], opaque((4, 5, 6)), unmapped([7, 8]))]

    assert run(subject).result() == [(1, 4, (7, 8)), (2, 5, (7, 8)), (3, 6, (7, 8))]


def test_map_waits_for_mapped_futures(run):
    double = task(lambda number: 2 * number, name="double")

    @flow_named("maps twice")
    def subject():
        first = double.map([1, 2, 3])
        return [future.result() for future in double.map(opaque(first))]

    assert run(subject).result() == [4, 8, 12]


def test_step_after_failed_step_never_runs(run):
    made = []

    @task
    def fails(number):
        if number == 2:
            raise OSError("no")
        return number

    @task
    def follows(number):
        made.append(number)

    @flow_named("follows")
    def subject():
        first = fails.map([1, 2])
        second = follows.map(opaque(first))
        failed = first[1].result(raise_on_failure=False)
        second[0].wait()
        second[1].wait()
        try:
            second[1].result(raise_on_failure=False)
        except UnfinishedRun as error:
            return [type(failed).__name__, str(error), second[1].state.name, second[0].state.name]
        return None

    message = "Run is in PENDING state, its result is not available."
    state = run(subject)
    assert state.result() == ["OSError", message, "NotReady", "Completed"]
    assert made == [1]


def test_callbacks_run_once_before_and_after_completion(run):
    heard = []

    @task
    def work():
        return "done"

    @flow_named("callbacks")
    def subject():
        future = work.submit()
        future.add_done_callback(lambda ended: heard.append(("early", ended.result())))
        future.wait()
        future.add_done_callback(lambda ended: heard.append(("late", ended.result())))
        return future.state.is_completed()

    assert run(subject).result() is True
    # Prefect calls the early callback on another thread, perhaps after `wait` has returned.
    assert sorted(heard) == [("early", "done"), ("late", "done")]


def test_step_hooks_run_before_result(run):
    events = []

    @task(
        on_completion=[lambda subject, _run, state: events.append((subject.name, state.name))],
        on_failure=[lambda subject, _run, state: events.append((subject.name, state.name))],
    )
    def work(number):
        if number < 0:
            raise ValueError("negative")
        return number

    @flow_named("hooks of steps")
    def subject():
        work(1)
        events.append("after 1")
        work.submit(-1).wait()
        events.append("after -1")

    run(subject)
    assert events == [("work", "Completed"), "after 1", ("work", "Failed"), "after -1"]


def hooks(events):
    """Return hooks for every kind of final state of a flow."""
    return {
        f"on_{kind}": [lambda _flow, run, state, kind=kind: events.append((kind, state.name, bool(run.id)))]
        for kind in ("completion", "failure", "crashed", "cancellation")
    }


def test_flow_ends_in_returned_state(run):
    events = []
    error = ValueError("some files failed")

    @flow_named("returns a state", **hooks(events))
    def subject(bad: bool):
        return Failed(message="one of two", data=error) if bad else Completed(message="all", data="report")

    good, bad = run(subject, bad=False), run(subject, bad=True)
    assert (good.is_completed(), good.message, good.result()) == (True, "all", "report")
    assert (bad.is_failed(), bad.message) == (True, "one of two")
    assert isinstance(bad.result(raise_on_failure=False), ValueError)
    assert events == [("completion", "Completed", True), ("failure", "Failed", True)]


def test_failing_hook_does_not_change_state(run):
    events = []

    def breaks(*_):
        events.append("breaks")
        raise RuntimeError("a hook")

    @flow_named("hook fails", on_completion=[breaks, lambda *_: events.append("next")])
    def subject():
        return 1

    assert run(subject).result() == 1
    assert events == ["breaks", "next"]


def test_crash_waits_for_started_steps(run):
    events = []

    @task
    def work(number):
        events.append(f"started {number}")
        time.sleep(0.2)
        events.append(f"ended {number}")

    @flow(name="crashes", task_runner=ThreadPoolTaskRunner(max_workers=1), **hooks(events))
    def subject():
        work.map([1, 2, 3])
        while not events:
            time.sleep(0.01)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(subject)
    assert events == ["started 1", "ended 1", ("crashed", "Crashed", True)]


def test_crash_ends_step_retries(run):
    events = []

    @task(retries=5, retry_delay_seconds=0.2)
    def fails():
        events.append("attempt")
        raise OSError("again")

    @flow_named("crashes between retries", **hooks(events))
    def subject():
        fails.submit()
        while not events:
            time.sleep(0.01)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(subject)
    assert events == ["attempt", ("crashed", "Crashed", True)]


def test_generator_step_yields_and_calls_hooks(run):
    events = []

    @task(on_completion=[lambda *_: events.append("completed")], on_failure=[lambda *_: events.append("failed")])
    def numbers(last):
        yield from range(last)
        if last > 2:
            raise ValueError("too many")

    @flow_named("generates")
    def subject():
        found = list(numbers(2))
        with pytest.raises(ValueError, match="too many"):
            list(numbers(3))
        return found

    assert run(subject).result() == [0, 1]
    assert events == ["completed", "failed"]


def test_bad_parameter_fails_run_before_body(run):
    events = []

    @flow_named("typed", **hooks(events))
    def subject(number: int):
        events.append(number)

    state = run(subject, number="three")
    assert state.is_failed()
    assert events == [("failure", "Failed", True)]


def test_hooks_see_passed_parameters(run):
    seen = []

    @flow_named("parameters", on_completion=[lambda _flow, run, _state: seen.append(run.parameters)])
    def subject(given: int, default: int = 7):
        return given + default

    assert run(subject, given=1).result() == 8
    assert seen[0]["given"] == 1


def test_steps_know_their_flow_run(run):
    seen = []

    @task
    def read_id():
        return str(flow_run.id)

    @flow_named("knows", on_completion=[lambda _flow, run, _state: seen.append(str(run.id))])
    def subject():
        return [str(flow_run.id), read_id(), read_id.submit().result()]

    found = run(subject).result()
    assert found == seen * 3
