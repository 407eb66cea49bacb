"""The doctor's diagnoses of a job, a pool and its nodes."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from tasks.azure.values import Job, Node, Pool, Problem
from tasks.model.verdict import Category
from tasks.steps.doctor import diagnose_job, diagnose_pool

NOW = datetime(2026, 11, 22, tzinfo=timezone.utc)


def make_job(state, reason=None):
    return Job(job_id="j", pool_id="p", state=state, created_at=None, terminate_reason=reason, metadata={})


def make_pool(state="active", allocation="steady", problems=()):
    return Pool(
        pool_id="p",
        state=state,
        allocation_state=allocation,
        allocated_at=NOW,
        resize_problems=tuple(problems),
        metadata={},
    )


def make_node(state, exit_code=None, problems=()):
    return Node(node_id=f"node-{state}", state=state, problems=tuple(problems), start_task_exit_code=exit_code)


def test_active_job_is_healthy():
    assert diagnose_job(make_job("active")) is None


@pytest.mark.parametrize("state", ["terminating", "completed"])
def test_job_at_wall_clock_ends_wait(state):
    diagnosis = diagnose_job(make_job(state, "MaxWallClockTimeExpiry"))
    assert diagnosis.fatal.category is Category.WALL_CLOCK


def test_terminated_job_ends_wait_with_reason():
    diagnosis = diagnose_job(make_job("completed", "UserTerminate"))
    assert diagnosis.fatal.category is Category.CANCELLED
    assert "[UserTerminate]" in diagnosis.message


def test_disabled_job_is_reported_only():
    diagnosis = diagnose_job(make_job("disabled"))
    assert diagnosis.fatal is None
    assert "disabled" in diagnosis.message


@pytest.mark.parametrize("state", ["creating", "starting", "waitingforstarttask", "idle", "running", "rebooting"])
def test_pool_with_starting_node_is_healthy(state):
    assert diagnose_pool(make_pool(), [make_node(state)]) is None


def test_failed_start_tasks_end_wait_with_exit_code():
    diagnosis = diagnose_pool(make_pool(), [make_node("starttaskfailed", exit_code=7)])
    assert diagnosis.fatal.category is Category.NODE
    assert "exit code 7 [StartTaskFailed]" in diagnosis.message


def test_one_lost_node_of_two_is_reported_only():
    diagnosis = diagnose_pool(make_pool(), [make_node("starttaskfailed", exit_code=1), make_node("idle")])
    assert diagnosis.fatal is None
    assert diagnosis.message.startswith("1 of 2 nodes failed")


def test_unusable_nodes_end_wait_with_service_code():
    problem = Problem(code="DiskFull", message="There is no space left.")
    diagnosis = diagnose_pool(make_pool(), [make_node("unusable", problems=[problem])])
    assert "There is no space left [DiskFull]" in diagnosis.fatal.message


def test_missing_quota_ends_wait():
    problem = Problem(code="AccountCoreQuotaReached", message="The specified account has reached core quota.")
    diagnosis = diagnose_pool(make_pool(problems=[problem]), [])
    assert "[AccountCoreQuotaReached]" in diagnosis.fatal.message


@pytest.mark.parametrize("code", ["AllocationFailed", "AllocationTimedout"])
def test_missing_capacity_is_reported_only(code):
    diagnosis = diagnose_pool(make_pool(problems=[Problem(code=code, message="No capacity.")]), [])
    assert diagnosis.fatal is None
    assert code in diagnosis.message


def test_resizing_pool_is_healthy():
    old = Problem(code="AccountCoreQuotaReached", message="Old news.")
    assert diagnose_pool(make_pool(allocation="resizing", problems=[old]), []) is None


@pytest.mark.parametrize(("minutes", "is_fatal"), [(-1, True), (1, False)])
def test_resize_error_before_job_is_ignored(minutes, is_fatal):
    problem = Problem(code="AccountCoreQuotaReached", message="No cores.")
    diagnosis = diagnose_pool(make_pool(problems=[problem]), [], since=NOW + timedelta(minutes=minutes))
    assert (diagnosis is not None) == is_fatal
