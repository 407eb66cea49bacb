"""What the doctor says of a job, a pool and its nodes."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from tasks.azure.values import Job, Node, Pool, Problem
from tasks.model.verdict import Category
from tasks.steps.doctor import diagnose_job, diagnose_pool

NOW = datetime(2026, 11, 22, tzinfo=timezone.utc)


def a_job(state, reason=None):
    return Job(job_id="j", pool_id="p", state=state, created_at=None, terminate_reason=reason, metadata={})


def a_pool(state="active", allocation="steady", problems=()):
    return Pool(
        pool_id="p",
        state=state,
        allocation_state=allocation,
        allocated_at=NOW,
        resize_problems=tuple(problems),
        metadata={},
    )


def a_node(state, exit_code=None, problems=()):
    return Node(node_id=f"node-{state}", state=state, problems=tuple(problems), start_task_exit_code=exit_code)


def test_an_active_job_is_well():
    assert diagnose_job(a_job("active")) is None


@pytest.mark.parametrize("state", ["terminating", "completed"])
def test_a_job_at_its_wall_clock_ends_the_wait(state):
    diagnosis = diagnose_job(a_job(state, "MaxWallClockTimeExpiry"))
    assert diagnosis.fatal.category is Category.WALL_CLOCK


def test_a_job_that_somebody_ended_ends_the_wait_with_the_reason():
    diagnosis = diagnose_job(a_job("completed", "UserTerminate"))
    assert diagnosis.fatal.category is Category.CANCELLED
    assert "[UserTerminate]" in diagnosis.message


def test_a_disabled_job_is_told_and_waited_for():
    diagnosis = diagnose_job(a_job("disabled"))
    assert diagnosis.fatal is None
    assert "disabled" in diagnosis.message


@pytest.mark.parametrize("state", ["creating", "starting", "waitingforstarttask", "idle", "running", "rebooting"])
def test_a_pool_with_a_node_on_its_way_is_well(state):
    assert diagnose_pool(a_pool(), [a_node(state)]) is None


def test_a_start_task_that_failed_on_every_node_ends_the_wait_with_its_exit_code():
    diagnosis = diagnose_pool(a_pool(), [a_node("starttaskfailed", exit_code=7)])
    assert diagnosis.fatal.category is Category.NODE
    assert "exit code 7 [StartTaskFailed]" in diagnosis.message


def test_one_lost_node_beside_a_good_one_is_told_and_waited_for():
    diagnosis = diagnose_pool(a_pool(), [a_node("starttaskfailed", exit_code=1), a_node("idle")])
    assert diagnosis.fatal is None
    assert diagnosis.message.startswith("1 of 2 nodes failed")


def test_unusable_nodes_end_the_wait_with_the_service_code():
    problem = Problem(code="DiskFull", message="There is no space left.")
    diagnosis = diagnose_pool(a_pool(), [a_node("unusable", problems=[problem])])
    assert "There is no space left [DiskFull]" in diagnosis.fatal.message


def test_a_missing_quota_ends_the_wait():
    problem = Problem(code="AccountCoreQuotaReached", message="The specified account has reached core quota.")
    diagnosis = diagnose_pool(a_pool(problems=[problem]), [])
    assert "[AccountCoreQuotaReached]" in diagnosis.fatal.message


@pytest.mark.parametrize("code", ["AllocationFailed", "AllocationTimedout"])
def test_missing_capacity_is_told_and_waited_for(code):
    diagnosis = diagnose_pool(a_pool(problems=[Problem(code=code, message="No capacity.")]), [])
    assert diagnosis.fatal is None
    assert code in diagnosis.message


def test_a_pool_that_is_still_resizing_is_well():
    old = Problem(code="AccountCoreQuotaReached", message="Old news.")
    assert diagnose_pool(a_pool(allocation="resizing", problems=[old]), []) is None


@pytest.mark.parametrize(("minutes", "is_fatal"), [(-1, True), (1, False)])
def test_the_last_resize_of_a_pool_that_served_before_is_old_news(minutes, is_fatal):
    problem = Problem(code="AccountCoreQuotaReached", message="No cores.")
    diagnosis = diagnose_pool(a_pool(problems=[problem]), [], since=NOW + timedelta(minutes=minutes))
    assert (diagnosis is not None) == is_fatal
