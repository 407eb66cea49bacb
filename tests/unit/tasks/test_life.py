"""Signs of life of a run: its locked file, and its heartbeat."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from tasks import clock
from tasks.azure.values import Container, Job, Pool
from tasks.clock import service_time
from tasks.steps.cleanup import Resources
from tasks.steps.life import MAX_HEARTBEAT_AGE, forget_dead_runs, lock_run, mark_ended, read_life_file
from tasks.steps.sweep import find_dead_runs

LOCK = "import sys; from tasks.steps.life import lock_run; lock_run(sys.argv[1]); print('locked', flush=True); input()"


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("TOPN_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


def test_lock_lasts_until_process_is_killed():
    flow_run_id = str(uuid4())
    with subprocess.Popen(
        [sys.executable, "-c", LOCK, flow_run_id], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "locked\n"
        assert read_life_file(flow_run_id).is_alive
        process.send_signal(signal.SIGSTOP)
        assert read_life_file(flow_run_id).is_alive
        process.kill()
    found = read_life_file(flow_run_id)
    assert (found.is_alive, found.has_ended) == (False, False)


def test_ended_run_is_unlocked_and_marked():
    flow_run_id = str(uuid4())
    lock_run(flow_run_id)
    lock_run(flow_run_id)
    assert read_life_file(flow_run_id).is_alive
    mark_ended(flow_run_id)
    found = read_life_file(flow_run_id)
    assert (found.is_alive, found.has_ended) == (False, True)
    lock_run(flow_run_id)
    assert read_life_file(flow_run_id).has_ended is False
    mark_ended(flow_run_id)


def test_run_of_another_folder_has_no_file():
    mark_ended(str(uuid4()))
    assert read_life_file(str(uuid4())) is None


def test_file_is_private(state):
    lock_run("run")
    assert (state / "runs" / "run").stat().st_mode & 0o077 == 0
    assert state.stat().st_mode & 0o077 == 0
    mark_ended("run")


def test_unwritable_state_folder_is_no_error(monkeypatch):
    monkeypatch.setenv("TOPN_STATE", "/dev/null/state")
    lock_run("run")
    mark_ended("run")
    assert read_life_file("run") is None


def test_only_files_of_dead_runs_are_deleted(state):
    names = ("alive", "left-something", "left-nothing", "new")
    for name in names:
        lock_run(name)
    for name in names[1:]:
        mark_ended(name)
    before = (service_time() - MAX_HEARTBEAT_AGE).timestamp()
    for name in names[:-1]:
        os.utime(state / "runs" / name, (before, before))
    forget_dead_runs(except_for={"left-something"})
    assert {path.name for path in (state / "runs").iterdir()} == {"alive", "left-something", "new"}
    mark_ended("alive")


HOUR = timedelta(hours=1)


def resources(*, expires_in=HOUR, age=timedelta(0), with_job=True, **metadata):
    """Return what an attempt of a run has, with the age of its heartbeat."""
    flow_run_id = str(uuid4())
    name = f"topn-{flow_run_id.replace('-', '')}-1"
    metadata = {
        "owner": "topn",
        "flow_run_id": flow_run_id,
        "expires_at": (service_time() + expires_in).isoformat(),
        **metadata,
    }
    job = Job(job_id=name, pool_id=name, state="active", created_at=None, terminate_reason=None, metadata=metadata)
    pool = Pool(
        pool_id=name,
        state="active",
        allocation_state="steady",
        allocated_at=None,
        resize_problems=(),
        metadata=metadata,
    )
    return flow_run_id, Resources(
        jobs=(job,) if with_job else (),
        pools=(pool,),
        containers={f"{name}-out": Container(metadata=metadata, age=age)},
    )


def found_dead(own, *, ago=timedelta(0)):
    return [(run.may_have_results, len(run.resources.names)) for run in find_dead_runs(own, service_time() - ago)]


@pytest.mark.parametrize(
    ("given", "dead"),
    [
        ({}, []),
        ({"age": timedelta(minutes=14)}, []),
        ({"age": timedelta(minutes=16)}, [(True, 3)]),
        ({"expires_in": -timedelta(seconds=1)}, [(False, 3)]),
        ({"age": timedelta(minutes=16), "cleanup": "started"}, [(False, 3)]),
        ({"age": timedelta(minutes=16), "with_job": False}, [(False, 2)]),
        ({"age": timedelta(minutes=16), "kept": "true"}, [(True, 0)]),
        ({"age": timedelta(minutes=16), "owner": "another"}, []),
        ({"age": timedelta(minutes=16), "flow_run_id": str(uuid4())}, []),
        ({"age": timedelta(minutes=16), "expires_at": "soon"}, []),
    ],
)
def test_run_of_another_folder_dies_by_heartbeat(given, dead):
    _, own = resources(**given)
    assert found_dead(own) == dead


def test_living_run_is_never_dead():
    """Not even if it was suspended until after its deadline."""
    flow_run_id, own = resources(expires_in=-HOUR, age=HOUR)
    lock_run(flow_run_id)
    assert found_dead(own) == []
    mark_ended(flow_run_id)
    assert found_dead(own) == [(False, 3)]


@pytest.mark.parametrize("minutes", [0, -70, 70])
def test_dead_process_is_recognized_at_once(state, monkeypatch, minutes):
    monkeypatch.setitem(clock._ahead, "Batch", timedelta(minutes=minutes))
    flow_run_id, own = resources()
    path = Path(state, "runs", flow_run_id)
    path.parent.mkdir(parents=True)
    path.touch()
    assert found_dead(own) == [(True, 3)]
    assert found_dead(own, ago=HOUR) == []


def test_unlisted_job_may_have_results():
    _, own = resources(age=timedelta(minutes=16), with_job=False)
    listing_failed = Resources(pools=own.pools, containers=own.containers, errors={"jobs topn-…": OSError()})
    assert found_dead(listing_failed) == [(True, 2)]
