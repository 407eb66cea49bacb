"""Dependencies, exit conditions, job managers, release tasks, automatic pools, and operations on nodes."""

from datetime import timedelta

import pytest
from scheduler_bench import COMMAND, Bench

from localbatch.account.records import Report
from localbatch.account.states import IllegalTransition
from localbatch.errors import ServiceError


@pytest.fixture
def bench():
    return Bench()


def names(bench):
    return [run.directory.rsplit("/", 1)[-1] for run in bench.started]


def dependent_job(bench, **body):
    bench.pool(taskSlotsPerNode=4)
    return bench.job(usesTaskDependencies=True, **body)


def test_task_waits_for_its_dependencies(bench):
    job = dependent_job(bench)
    last = bench.task(job, "last", dependsOn={"taskIds": ["A", "b"]})
    bench.task(job, "a")
    bench.task(job, "b")
    bench.tick()
    assert names(bench) == ["a", "b"]
    first, second = bench.started
    bench.finish([first])
    assert (last.state, last.unmet) == ("active", 1)
    bench.finish([second])
    assert last.state == "running"


def test_task_waits_for_id_ranges(bench):
    job = dependent_job(bench)
    last = bench.task(job, "last", dependsOn={"taskIdRanges": [{"start": "1", "end": 3}]})
    for task_id in ("1", "02", "x3"):
        bench.task(job, task_id)
    bench.tick()
    bench.finish()
    assert (last.state, last.unmet) == ("active", 1)
    bench.task(job, "003")
    bench.tick()
    bench.finish()
    assert last.state == "running"


def test_satisfied_dependencies_do_not_block(bench):
    job = dependent_job(bench)
    for task_id in ("1", "2"):
        bench.task(job, task_id)
    bench.tick()
    bench.finish()
    bench.task(job, "last", dependsOn={"taskIds": ["1"], "taskIdRanges": [{"start": 1, "end": 2}]})
    bench.tick()
    assert names(bench) == ["last"]


@pytest.mark.parametrize(("action", "state"), [("block", "active"), ("satisfy", "running")])
def test_exit_condition_decides_about_dependent_tasks(bench, action, state):
    job = dependent_job(bench)
    conditions = {"exitCodes": [{"code": 3, "exitOptions": {"dependencyAction": action}}]}
    bench.task(job, "a", exitConditions=conditions)
    last = bench.task(job, "last", dependsOn={"taskIds": ["a"]})
    bench.tick()
    bench.finish(exit_code=3)
    assert last.state == state


BOTH = {
    "exitCodes": [{"code": 2, "exitOptions": {"dependencyAction": "satisfy"}}],
    "exitCodeRanges": [{"start": 2, "end": 9, "exitOptions": {"dependencyAction": "block"}}],
    "preProcessingError": {"dependencyAction": "satisfy"},
    "fileUploadError": {"dependencyAction": "satisfy"},
    "default": {"dependencyAction": "block"},
}


@pytest.mark.parametrize(
    ("exit_code", "failure", "state"),
    [
        (0, None, "running"),
        (2, None, "running"),
        (5, None, "active"),
        (77, None, "active"),
        (None, "BlobNotFound", "running"),
        (0, "FileUploadMiscError", "running"),
        (5, "FileUploadMiscError", "active"),
    ],
)
def test_exit_code_takes_precedence(bench, exit_code, failure, state):
    job = dependent_job(bench)
    bench.task(job, "a", exitConditions=BOTH)
    last = bench.task(job, "last", dependsOn={"taskIds": ["a"]})
    bench.tick()
    bench.finish(exit_code=exit_code, failure={"code": failure} if failure else None)
    assert last.state == state


@pytest.mark.parametrize(
    ("options", "state", "reason"),
    [
        (None, "completed", "TaskFailed"),
        ({"jobAction": "none"}, "active", None),
        ({"jobAction": "disable"}, "disabled", None),
        ({"jobAction": "terminate"}, "completed", "TaskFailed"),
    ],
)
def test_exit_condition_decides_about_the_job(bench, options, state, reason):
    job = dependent_job(bench, onTaskFailure="performexitoptionsjobaction")
    bench.task(job, "bad", **({"exitConditions": {"default": options}} if options else {}))
    bench.tick()
    bench.finish(exit_code=1)
    assert (job.state, job.terminate_reason) == (state, reason)


@pytest.mark.parametrize(("kills", "state"), [(True, "completed"), (False, "active")])
def test_job_manager_may_end_its_job(bench, kills, state):
    bench.pool(2)
    job = bench.job(jobManagerTask=COMMAND | {"id": "jm", "killJobOnCompletion": kills})
    manager = bench.task(job, "jm")
    bench.tick()
    bench.finish()
    assert (manager.state, job.state, job.terminate_reason) == ("completed", state, "JMComplete" if kills else None)


def test_exclusive_task_has_its_own_node(bench):
    pool = bench.pool(1, taskSlotsPerNode=4)
    job = bench.job()
    bench.task(job, "small")
    bench.tick()
    small = bench.started
    alone = bench.task(job, "alone")
    job.waiting.discard(alone)
    alone.is_exclusive = True
    bench.store.enqueue(job, alone)
    bench.tick()
    assert alone.state == "active"
    bench.finish(small)
    node = next(iter(pool.nodes.values()))
    assert (alone.state, node.slots_free) == ("running", 0)
    bench.task(job, "late")
    bench.tick()
    assert names(bench) == []
    bench.store.reports.append(Report(run_id=alone.run.id, exit_code=0))
    bench.tick()
    assert names(bench) == ["late"]


def test_job_waits_for_its_release_tasks(bench):
    pool = bench.pool(2)
    job = bench.job(jobPreparationTask=COMMAND, jobReleaseTask=COMMAND)
    bench.task(job)
    bench.tick()
    bench.finish()
    bench.scheduler.jobs.terminate(job, "enough", bench.now)
    bench.tick()
    assert (names(bench), job.state) == (["jobrelease"], "terminating")
    bench.finish(exit_code=9)  # How it ends does not matter.
    assert job.state == "completed"
    (node,) = job.prepared.values()
    assert (node.releases["job"].execution.exit_code, node in pool.nodes.values()) == (9, True)


def test_release_task_ends_at_its_limit(bench):
    bench.pool()
    job = bench.job(jobPreparationTask=COMMAND, jobReleaseTask=COMMAND)
    bench.task(job)
    bench.tick()
    bench.scheduler.jobs.terminate(job, "enough", bench.now)
    bench.tick(minutes=14)
    assert job.state == "terminating"
    bench.tick(minutes=1)
    assert job.state == "completed"


def test_lost_node_does_not_block_release(bench):
    pool = bench.pool()
    job = bench.job(jobPreparationTask=COMMAND, jobReleaseTask=COMMAND)
    bench.task(job)
    bench.tick()
    bench.scheduler.jobs.delete(job, bench.now)
    bench.tick()
    assert (names(bench), job.state) == (["jobrelease"], "deleting")
    bench.scheduler.nodes.remove_abruptly(bench.store.node("pool", next(iter(pool.nodes))), bench.now)
    bench.tick()
    assert bench.store.jobs == {}


def test_forced_deletion_waits_for_nothing(bench):
    bench.pool()
    job = bench.job(jobPreparationTask=COMMAND, jobReleaseTask=COMMAND)
    bench.task(job)
    bench.tick()
    bench.scheduler.jobs.delete(job, bench.now, force=True)
    bench.tick()
    assert (bench.store.jobs, names(bench), bench.store.runs) == ({}, [], {})


def test_files_are_kept_for_retention_time(bench):
    bench.pool()
    task = bench.task(bench.job(), constraints={"retentionTime": "PT1H"})
    bench.tick()
    bench.finish()
    assert bench.tick() == bench.now + timedelta(hours=1)
    bench.tick(minutes=59)
    assert not task.files_removed
    bench.tick(minutes=1)
    assert (task.files_removed, bench.removed) == (True, ["workitems/job/job-1/task"])


def test_affinity_applies_if_node_has_slots(bench):
    pool = bench.pool(3)
    job = bench.job()
    last = list(pool.nodes.values())[-1] if pool.nodes else None
    bench.tick()
    last = list(pool.nodes.values())[-1]
    for task_id in "ab":
        bench.task(job, task_id, affinityInfo={"affinityId": f"TVM:{last.id}"})
    bench.tick()
    assert job.tasks["a"].node is last
    assert job.tasks["b"].state == "running"


def test_job_priority_orders_tasks(bench):
    bench.pool(2)
    for priority in (-5, 100, 7):
        bench.task(bench.job(id=f"j{priority}".replace("-", "m"), priority=priority))
    bench.tick()
    assert [run.environment["AZ_BATCH_JOB_ID"] for run in bench.started] == ["j100", "j7"]


@pytest.mark.parametrize(
    ("option", "state"), [("requeue", "active"), ("terminate", "completed"), ("taskcompletion", "running")]
)
def test_node_is_offline_without_running_tasks(bench, option, state):
    pool = bench.pool()
    task = bench.task(bench.job())
    bench.tick()
    node, runs = task.node, bench.started
    bench.scheduler.nodes.disable_scheduling(node, option, bench.now)
    bench.tick()
    assert (task.state, node.state) == (state, "running" if state == "running" else "offline")
    bench.finish(runs)
    assert (node.state, node.slots_free) == ("offline", 0)
    bench.scheduler.nodes.enable_scheduling(node, bench.now)
    bench.tick()
    assert (node.state, next(iter(pool.nodes.values()))) == ("running" if state == "active" else "idle", node)


def test_reimage_repeats_preparation_tasks(bench):
    bench.pool()
    job = bench.job(jobPreparationTask=COMMAND)
    task = bench.task(job)
    bench.tick()
    node = next(iter(job.prepared.values()))
    bench.finish(exit_code=1)
    assert (task.state, bench.started) == ("active", [])
    bench.scheduler.nodes.maintain(node, "reimage", "requeue", bench.now)
    bench.tick()
    assert ("" in bench.removed, names(bench)) == (True, ["jobpreparation"])


def test_reboot_during_preparation_keeps_node_eligible(bench):
    bench.pool()
    job = bench.job(jobPreparationTask=COMMAND)
    task = bench.task(job)
    bench.tick()
    bench.scheduler.nodes.maintain(task.node, "reboot", "requeue", bench.now)
    bench.tick()
    assert (names(bench), task.state) == (["jobpreparation"], "preparing")


def test_deallocated_node_is_started_again(bench):
    pool = bench.pool()
    bench.tick()
    (node,) = pool.nodes.values()
    bench.scheduler.nodes.maintain(node, "deallocate", "requeue", bench.now)
    bench.tick(hours=1)
    assert node.state == "deallocated"
    bench.scheduler.nodes.start(node, bench.now)
    assert node.state == "starting"
    bench.tick()
    assert node.state == "idle"


def test_removing_nodes_reduces_the_target(bench):
    pool = bench.pool(3)
    bench.tick()
    leaving = list(pool.nodes.values())[:2]
    bench.scheduler.pools.remove_nodes(pool, leaving, "requeue", bench.now)
    assert pool.allocation.state == "resizing"
    bench.tick()
    assert (pool.target_dedicated, len(pool.nodes), pool.allocation.state) == (1, 1, "steady")


def test_job_quota_ignores_completed_jobs(bench):
    bench.store.job_quota = 1
    job = bench.job(id="a")
    with pytest.raises(ServiceError) as caught:
        bench.job(id="b")
    assert caught.value.code == "ActiveJobAndScheduleQuotaReached"
    bench.scheduler.jobs.terminate(job, "x", bench.now)
    bench.tick()
    bench.job(id="b")


def test_reboot_repeats_a_failed_start_task(bench):
    bench.scheduler.faults.start_task_exit_codes["pool"] = 1
    pool = bench.pool(1, startTask=COMMAND)
    bench.tick()
    (node,) = pool.nodes.values()
    assert node.state == "starttaskfailed"
    bench.scheduler.faults.start_task_exit_codes.clear()
    bench.scheduler.nodes.maintain(node, "reboot", "requeue", bench.now)
    assert node.state == "rebooting"
    with pytest.raises(IllegalTransition):
        bench.scheduler.nodes.maintain(node, "reboot", "requeue", bench.now)
    bench.tick()
    bench.finish()
    assert node.state == "idle"
