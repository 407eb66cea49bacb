"""The doctor's diagnoses of a job, a pool and its nodes."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from tasks.azure.values import Job, Node, Pool, Problem
from tasks.model.run import BatchJob
from tasks.model.verdict import Category
from tasks.steps import doctor as doctor_module
from tasks.steps.doctor import Doctor, diagnose_job, diagnose_pool

NOW = datetime(2026, 11, 22, tzinfo=timezone.utc)


def make_job(state, reason=None):
    return Job(job_id="j", pool_id="p", state=state, created_at=None, terminate_reason=reason, metadata={})


def make_pool(state="active", allocation="steady", problems=(), **autoscale):
    return Pool(
        pool_id="p",
        state=state,
        allocation_state=allocation,
        allocated_at=NOW,
        resize_problems=tuple(problems),
        metadata={},
        **autoscale,
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


def test_lost_nodes_may_recover():
    """Batch loses contact with nodes, for example while it updates their hosts."""
    diagnosis = diagnose_pool(make_pool(), [make_node("unusable"), make_node("unusable")])
    assert diagnosis.fatal is None
    assert diagnosis.message == "Node `node-unusable` of pool `p` is unusable: [unusable]; Batch tries to recover it."
    broken = make_node("unusable", problems=[Problem(code="DiskFull", message="There is no space left.")])
    assert diagnose_pool(make_pool(), [broken, make_node("unusable")]).fatal is None
    assert diagnose_pool(make_pool(), [broken, make_node("starttaskfailed", exit_code=1)]).fatal is not None


def test_missing_part_of_nodes_is_reported_only():
    problem = Problem(code="AccountCoreQuotaReached", message="No cores.")
    diagnosis = diagnose_pool(make_pool(problems=[problem]), [make_node("running")])
    assert diagnosis.fatal is None
    assert diagnosis.message == "Pool `p` has only 1 of its nodes: No cores [AccountCoreQuotaReached]."
    assert diagnose_pool(make_pool(allocation="resizing", problems=[problem]), [make_node("running")]) is None


def test_missing_quota_ends_wait():
    problem = Problem(code="AccountCoreQuotaReached", message="The specified account has reached core quota.")
    diagnosis = diagnose_pool(make_pool(problems=[problem]), [])
    assert "[AccountCoreQuotaReached]" in diagnosis.fatal.message


@pytest.mark.parametrize("code", ["AllocationFailed", "AllocationTimedout"])
def test_missing_capacity_is_reported_only(code):
    diagnosis = diagnose_pool(make_pool(problems=[Problem(code=code, message="No capacity.")]), [])
    assert diagnosis.fatal is None
    assert code in diagnosis.message


DEDICATED, SPOT = "Desired number of dedicated nodes.", "Desired number of low priority nodes."


@pytest.mark.parametrize(
    ("message", "code", "provider_code", "is_fatal"),
    [
        (DEDICATED, "AllocationFailed", "BadRequest", True),
        (DEDICATED, "AllocationFailed", "SkuNotAvailable", True),
        (DEDICATED, "AllocationFailed", "QuotaExceeded", True),
        (DEDICATED, "AllocationFailed", "AllocationFailed", False),
        (DEDICATED, "AllocationTimedout", "", False),
        (DEDICATED, "AccountVMSeriesCoreQuotaReached", "", True),
        # The image does not fit dedicated nodes either.
        (SPOT, "AllocationFailed", "BadRequest", True),
        # Dedicated nodes can do the work.
        (SPOT, "AllocationFailed", "SkuNotAvailable", False),
        (SPOT, "AllocationFailed", "", False),
        ("Could not be allocated (Reason: subnet has delegation to x)", "AllocationFailed", "", True),
        ("Could not be allocated (Reason: The specified image is not found)", "AllocationFailed", "", True),
        ("Could not be allocated (Reason: internal error)", "AllocationFailed", "", False),
        ("Reached the quota.", "AccountSpotCoreQuotaReached", "", False),
        ("Reached the quota.", "AccountLowPriorityCoreQuotaReached", "", False),
    ],
)
@pytest.mark.parametrize("others", [[], [Problem(code="AllocationTimedout", message="No capacity.")]])
def test_only_remaining_resize_errors_end_wait(message, code, provider_code, is_fatal, others):
    problem = Problem(code=code, message=message, provider_code=provider_code)
    diagnosis = diagnose_pool(make_pool(problems=[*others, problem]), [])
    assert (diagnosis.fatal is not None) == is_fatal
    assert not is_fatal or code in diagnosis.message


class ScaledAccount:
    """An account with one pool, which remembers that its autoscaling was restarted."""

    def __init__(self):
        self.state = {}
        self.restarts = 0

    def get_job(self, job_id):
        return make_job("active")

    def get_pool(self, pool_id):
        return make_pool(**self.state)

    def list_nodes(self, pool_id):
        return []

    def restart_autoscale(self, pool_id):
        self.restarts += 1


@pytest.fixture
def examine(monkeypatch):
    """Examine a pool some minutes after the first examination."""
    account = ScaledAccount()
    doctors = {}

    def examine(minutes, *, own_pool=True, **state):
        account.state = state
        monkeypatch.setattr(doctor_module, "service_time", lambda: NOW + timedelta(minutes=minutes))
        job = BatchJob(job_id="j", pool_id="p", files_variable="")
        doctor = doctors.setdefault(own_pool, Doctor(account, job, own_pool=own_pool))
        diagnosis = doctor.examine()
        return diagnosis.message if diagnosis else None, account.restarts

    return examine


FAILED = {"scaled_at": NOW, "autoscale_problem": Problem(code="GetSampleFailed", message="Not enough samples")}


def test_failed_evaluations_are_reported_and_autoscale_is_restarted(examine):
    """Without this, the pool has no nodes, and nobody knows why."""
    message, restarts = examine(0, **FAILED)
    assert message == (
        "Batch does not evaluate the autoscale formula of pool `p`: Not enough samples [GetSampleFailed]; Batch will retry."
    )
    assert restarts == 0
    assert examine(15, **FAILED)[1] == 0
    message, restarts = examine(16, **FAILED)
    assert message.endswith("[GetSampleFailed]; restarted the autoscaling.")
    assert restarts == 1
    assert examine(30, **FAILED)[1] == 1
    assert examine(33, **FAILED)[1] == 2
    assert examine(34, scaled_at=NOW + timedelta(minutes=33)) == (None, 2)


def test_missing_evaluations_restart_autoscale(examine):
    assert examine(0, scaled_at=NOW) == (None, 0)
    assert examine(14, scaled_at=NOW) == (None, 0)
    assert examine(16, scaled_at=NOW)[1] == 1
    # During a resize, nothing is evaluated.
    assert examine(60, scaled_at=NOW, allocation="resizing") == (None, 1)
    assert examine(70, scaled_at=NOW) == (None, 1)


def test_pool_of_user_is_not_restarted(examine):
    message, restarts = examine(0, own_pool=False, **FAILED)
    assert "[GetSampleFailed]" in message
    assert examine(60, own_pool=False, **FAILED)[1] == restarts == 0
    assert examine(90, own_pool=False) == (None, 0)


def test_resizing_pool_is_healthy():
    old = Problem(code="AccountCoreQuotaReached", message="Old news.")
    assert diagnose_pool(make_pool(allocation="resizing", problems=[old]), []) is None


@pytest.mark.parametrize(("minutes", "is_fatal"), [(-1, True), (1, False)])
def test_resize_error_before_job_is_ignored(minutes, is_fatal):
    problem = Problem(code="AccountCoreQuotaReached", message="No cores.")
    diagnosis = diagnose_pool(make_pool(problems=[problem]), [], since=NOW + timedelta(minutes=minutes))
    assert (diagnosis is not None) == is_fatal
