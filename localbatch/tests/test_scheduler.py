"""The scheduler alone: instants in, actions and states out, without threads, processes or waiting."""

from collections import Counter
from datetime import timedelta

import pytest
from scheduler_bench import COMMAND, START, Bench

from localbatch.account.records import Report
from localbatch.rules.agenda import PACES


@pytest.fixture
def bench():
    return Bench()


def node_states(pool):
    return [node.state for node in pool.nodes.values()]


def test_real_pace_shows_every_state():
    bench = Bench("real")
    pool = bench.pool(2, startTask=COMMAND)
    seen = []
    while "waitingforstarttask" not in node_states(pool):
        bench.tick(seconds=1)
        seen += [(pool.allocation.state, *sorted(set(node_states(pool))))]
    assert list(dict.fromkeys(seen)) == [
        ("resizing",),
        ("steady", "creating"),
        ("steady", "starting"),
        ("steady", "waitingforstarttask"),
    ]
    bench.finish()
    assert node_states(pool) == ["idle", "idle"]


def test_next_tick_follows_the_pace():
    bench = Bench("real")
    bench.pool()
    assert bench.tick() == START + timedelta(seconds=PACES["real"].allocating)


def test_resize_without_work_is_short():
    bench = Bench("real")
    pool = bench.pool(0)
    bench.tick()
    assert pool.allocation.state == "resizing"
    bench.tick(seconds=2)
    assert pool.allocation.state == "steady"


def test_nothing_to_do_needs_no_tick(bench):
    bench.pool()
    bench.job()
    bench.tick()
    assert bench.tick() is None


def test_job_ends_after_48_hours(bench):
    bench.pool()
    job = bench.job(constraints={"maxWallClockTime": "PT48H"})
    running, waiting = bench.task(job, "a"), bench.task(job, "b")
    assert bench.tick() == START + timedelta(hours=48)
    run = bench.started[0]
    bench.tick(hours=47, minutes=59)
    assert (job.state, running.state) == ("active", "running")
    bench.tick(minutes=1)
    assert (job.state, job.terminate_reason) == ("completed", "MaxWallClockTimeExpiry")
    assert (running.state, running.execution.failure["code"], bench.killed) == ("completed", "TaskEnded", [run.run_id])
    assert waiting.state == "active"
    bench.finish([run])
    assert running.execution.exit_code is None


def test_task_limit_kills_and_frees_slot(bench):
    bench.pool()
    job = bench.job()
    slow = bench.task(job, "slow", constraints={"maxWallClockTime": "PT1M", "maxTaskRetryCount": 3})
    bench.task(job, "next")
    bench.tick()
    bench.tick(minutes=1)
    assert (slow.state, slow.execution.failure["code"], slow.execution.retry_count) == ("completed", "TaskEnded", 0)
    assert [run.directory for run in bench.started] == ["workitems/job/job-1/next"]


def test_tasks_spread_and_fill_slots(bench):
    pool = bench.pool(2, taskSlotsPerNode=4)
    job = bench.job()
    for number in range(4):
        bench.task(job, f"t{number}")
    bench.tick()
    assert Counter(run.node.id for run in bench.started) == dict.fromkeys([node.id for node in pool.nodes.values()], 2)
    for number in range(4, 20):
        bench.task(job, f"t{number}")
    bench.tick()
    assert (len(bench.started), job.task_counts.active, job.task_counts.running) == (4, 12, 8)


def test_packing_fills_node_first(bench):
    bench.pool(2, taskSlotsPerNode=2, taskSchedulingPolicy={"nodeFillType": "pack"})
    job = bench.job()
    for number in range(2):
        bench.task(job, f"t{number}")
    bench.tick()
    assert len({run.node.id for run in bench.started}) == 1


def test_small_task_overtakes_a_large_one(bench):
    bench.pool(taskSlotsPerNode=2)
    job = bench.job()
    for task_id, slots in (("one", 1), ("big", 2), ("small", 1)):
        bench.task(job, task_id, requiredSlots=slots)
    bench.tick()
    assert [run.directory.split("/")[-1] for run in bench.started] == ["one", "small"]
    assert (job.slot_counts.running, job.slot_counts.active) == (2, 2)
    bench.finish()
    assert [run.directory.split("/")[-1] for run in bench.started] == ["big"]


def test_higher_priority_job_goes_first(bench):
    bench.pool()
    bench.task(bench.job(id="low"))
    bench.task(bench.job(id="high", priority=10))
    bench.tick()
    assert [run.environment["AZ_BATCH_JOB_ID"] for run in bench.started] == ["high"]


def test_job_respects_max_parallel_tasks(bench):
    bench.pool(taskSlotsPerNode=4)
    job = bench.job(maxParallelTasks=2)
    for number in range(4):
        bench.task(job, f"t{number}")
    bench.tick()
    assert job.task_counts.running == 2


def test_retry_comes_first_on_its_node(bench):
    bench.pool(2)
    job = bench.job(constraints={"maxTaskRetryCount": 2})
    task = bench.task(job, "flaky")
    bench.tick()
    home, first = task.node, bench.started
    for number in range(3):
        bench.task(job, f"t{number}")
    bench.finish(first, exit_code=1)
    assert (task.state, task.execution.retry_count, task.node) == ("running", 1, home)
    for _ in range(2):
        run_id = next(run.id for run in bench.store.runs.values() if run.owner is task)
        bench.store.reports.append(Report(run_id=run_id, exit_code=1))
        bench.tick()
    assert (task.state, task.execution.retry_count, task.execution.exit_code) == ("completed", 2, 1)
    assert task.execution.failure["code"] == "FailureExitCode"


def test_preprocessing_failure_is_not_retried(bench):
    bench.pool()
    task = bench.task(bench.job(constraints={"maxTaskRetryCount": 5}))
    bench.tick()
    bench.finish(exit_code=None, failure={"code": "BlobNotFound"})
    assert (task.state, task.execution.failure["code"], task.execution.retry_count) == ("completed", "BlobNotFound", 0)


def test_leaving_node_requeues_its_tasks(bench):
    pool = bench.pool(taskSlotsPerNode=2)
    task = bench.task(bench.job(constraints={"maxTaskRetryCount": 0}))
    bench.tick()
    run = bench.started[0]
    bench.scheduler.pools.resize(pool, 0, 0, "requeue", bench.now)
    bench.tick()
    assert (task.state, task.execution.requeue_count, task.execution.retry_count) == ("active", 1, 0)
    assert (task.node, bench.killed, pool.nodes) == (None, [run.run_id], {})
    bench.scheduler.pools.resize(pool, 1, 0, "requeue", bench.now)
    bench.tick()
    assert task.state == "running"


@pytest.mark.parametrize(("option", "state"), [("terminate", "completed"), ("taskcompletion", "running")])
def test_resize_option_applies_to_running_tasks(bench, option, state):
    pool = bench.pool()
    task = bench.task(bench.job())
    bench.tick()
    runs = bench.started
    bench.scheduler.pools.resize(pool, 0, 0, option, bench.now)
    bench.tick()
    assert task.state == state
    bench.finish(runs)
    assert (task.state, pool.nodes, pool.allocation.state) == ("completed", {}, "steady")


def test_running_tasks_need_no_ticks(bench):
    pool = bench.pool()
    bench.task(bench.job())
    bench.tick()
    bench.scheduler.pools.resize(pool, 0, 0, "taskcompletion", bench.now)
    assert bench.tick() == START + timedelta(minutes=15)  # The resize timeout.
    assert (pool.allocation.state, node_states(pool)) == ("resizing", ["leavingpool"])


def test_idle_nodes_leave_before_busy_ones(bench):
    pool = bench.pool(3)
    task = bench.task(bench.job())
    bench.tick()
    bench.scheduler.pools.resize(pool, 1, 0, "requeue", bench.now)
    bench.tick()
    assert task.state == "running"
    assert list(pool.nodes.values()) == [task.node]


def test_failed_start_task_blocks_the_node(bench):
    pool = bench.pool(1, startTask=COMMAND | {"maxTaskRetryCount": 1})
    task = bench.task(bench.job())
    bench.tick()
    bench.finish(exit_code=9)
    assert (node_states(pool), bench.store.runs.keys()) == (["waitingforstarttask"], {2})
    bench.store.reports.append(Report(run_id=2, exit_code=9))
    bench.tick()
    chore = next(iter(pool.nodes.values())).start_task
    assert (chore.state, chore.execution.exit_code, chore.execution.retry_count) == ("completed", 9, 1)
    assert (node_states(pool), pool.allocation.state, task.state) == (["starttaskfailed"], "steady", "active")


def test_unawaited_start_task_runs_beside_tasks(bench):
    bench.pool(1, startTask=COMMAND | {"waitForSuccess": False})
    bench.task(bench.job())
    bench.tick()
    assert [run.directory for run in bench.started] == ["startup", "workitems/job/job-1/task"]


def test_preparation_task_runs_once_per_node(bench):
    bench.pool(1, taskSlotsPerNode=2)
    job = bench.job(jobPreparationTask=COMMAND)
    tasks = [bench.task(job, task_id) for task_id in "abc"]
    bench.tick()
    assert [run.directory for run in bench.started] == ["workitems/job/job-1/jobpreparation"]
    assert ([task.state for task in tasks], job.task_counts.running) == (["preparing", "preparing", "active"], 2)
    bench.finish()
    assert [task.state for task in tasks] == ["running", "running", "active"]


def test_failed_preparation_excludes_the_node(bench):
    pool = bench.pool(2)
    job = bench.job(jobPreparationTask=COMMAND)
    task = bench.task(job)
    bench.tick()
    bad = bench.started[0].node
    bench.finish(exit_code=1)
    assert task.node is not bad
    assert task.state == "preparing"
    bench.store.reports.append(Report(run_id=2, exit_code=1))
    bench.tick()
    assert (task.state, task.execution.requeue_count, node_states(pool)) == ("active", 0, ["idle", "idle"])


def test_terminatejob_ends_a_finished_job(bench):
    bench.pool()
    job = bench.job(onAllTasksComplete="noaction")
    bench.task(job)
    bench.tick()
    job.spec["onAllTasksComplete"] = "terminatejob"
    bench.tick()
    assert job.state == "active"
    bench.store.reports.append(Report(run_id=1, exit_code=1))
    bench.tick()
    assert (job.state, job.terminate_reason) == ("completed", "AllTasksComplete")


def test_terminatejob_ends_an_empty_job(bench):
    job = bench.job(onAllTasksComplete="terminatejob")
    bench.tick()
    assert job.state == "completed"


@pytest.mark.parametrize(("option", "state"), [("requeue", "active"), ("terminate", "completed"), ("wait", "running")])
def test_disabled_job_starts_nothing(bench, option, state):
    bench.pool(taskSlotsPerNode=1)
    job = bench.job()
    task, other = bench.task(job, "a"), bench.task(job, "b")
    bench.tick()
    runs = bench.started
    bench.scheduler.jobs.disable(job, option, bench.now)
    bench.tick()
    assert (task.state, other.state) == (state, "active")
    assert job.state == ("disabling" if option == "wait" else "disabled")
    bench.finish(runs)
    assert job.state == "disabled"
    bench.scheduler.jobs.enable(job, bench.now)
    bench.tick()
    assert (job.state, job.task_counts.running) == ("active", 1)


def test_deleted_pool_requeues_its_tasks(bench):
    pool = bench.pool(2)
    task = bench.task(bench.job())
    bench.tick()
    bench.scheduler.pools.delete(pool, bench.now)
    assert (pool.state, pool.allocation.state) == ("deleting", "resizing")
    bench.tick()
    assert (task.state, bench.store.pools) == ("active", {})


def test_report_of_killed_run_is_ignored(bench):
    bench.pool()
    job = bench.job()
    task = bench.task(job)
    bench.tick()
    bench.scheduler.tasks.terminate(job, task, bench.now)
    before = (job.task_counts.failed, task.node.tasks_run)
    bench.finish(exit_code=0)
    assert (job.task_counts.failed, task.node.tasks_run) == before == (1, 0)


FORMULA = "$TargetDedicatedNodes = min(4, $PendingTasks.GetSample(1)); $NodeDeallocationOption = taskcompletion;"


def test_formula_applies_at_every_interval(bench):
    job = bench.job()
    for number in range(3):
        bench.task(job, f"t{number}")
    pool = bench.pool(0, enableAutoScale=True, autoScaleFormula=FORMULA, autoScaleEvaluationInterval="PT5M")
    bench.tick()
    assert (pool.target_dedicated, node_states(pool), pool.allocation.state) == (3, ["running"] * 3, "steady")
    assert "$TargetDedicatedNodes=3" in pool.autoscale_run["results"]
    bench.finish()
    bench.tick(minutes=4)
    assert len(pool.nodes) == 3
    bench.tick(minutes=1)
    assert (pool.nodes, pool.allocation.state) == ({}, "steady")


def scaled_pool(bench, formula):
    return bench.pool(0, enableAutoScale=True, autoScaleFormula=formula, autoScaleEvaluationInterval="PT5M")


def test_first_samples_appear_after_delay():
    bench = Bench("real")
    pool = scaled_pool(bench, "$TargetDedicatedNodes = max(0, $PendingTasks.GetSample(1));")
    bench.tick()
    assert pool.autoscale_run["error"] == {
        "code": "InsufficientSampleData",
        "message": "Autoscale evaluation failed due to insufficient sample data",
        "values": [
            {
                "name": "Message",
                "value": "Line 1, Col 32: Insufficient data from data set: $PendingTasks wanted 100%, received 0%",
            }
        ],
    }
    bench.tick(seconds=30)
    assert "PendingTasks" not in pool.samples
    bench.tick(seconds=30)
    assert len(pool.samples["PendingTasks"]) == 1
    bench.tick(minutes=4)
    assert "error" not in pool.autoscale_run


def test_lazy_formula_needs_no_samples():
    bench = Bench("real")
    percent = "$PendingTasks.GetSamplePercent(TimeInterval_Minute * 3)"
    pool = scaled_pool(bench, f"$TargetDedicatedNodes = {percent} < 1 ? 2 : max(0, $PendingTasks.GetSample(1));")
    bench.tick()
    assert ("error" in pool.autoscale_run, pool.target_dedicated) == (False, 2)
    bench.tick(minutes=1)
    bench.tick(minutes=4)
    assert ("error" in pool.autoscale_run, pool.target_dedicated) == (False, 0)


def test_samples_are_lost_when_autoscale_is_turned_off():
    bench = Bench("real")
    pool = scaled_pool(bench, FORMULA)
    bench.tick()
    bench.tick(minutes=1)
    bench.scheduler.pools.enable_autoscale(pool, bench.now)
    bench.tick()
    assert pool.samples["PendingTasks"]
    bench.scheduler.pools.disable_autoscale(pool, bench.now)
    pool.spec |= {"autoScaleFormula": FORMULA, "autoScaleEvaluationInterval": "PT5M"}
    bench.scheduler.pools.enable_autoscale(pool, bench.now)
    bench.tick()
    assert "PendingTasks" not in pool.samples
    bench.tick(minutes=1)
    assert len(pool.samples["PendingTasks"]) == 1


def test_failed_evaluation_changes_nothing(bench):
    formula = '$TargetDedicatedNodes = time() > time("2026-01-01 00:01:00") ? 1 / 0 : 1;'
    pool = bench.pool(0, enableAutoScale=True, autoScaleFormula=formula, autoScaleEvaluationInterval="PT5M")
    bench.tick()
    bench.tick(minutes=5)
    assert pool.autoscale_run["error"]["code"]
    targets = "$TargetDedicatedNodes=1;$TargetLowPriorityNodes=0;$NodeDeallocationOption=requeue"
    assert pool.autoscale_run["results"] == targets
    assert node_states(pool) == ["idle"]


def test_samples_are_taken_every_half_minute(bench):
    pool = bench.pool(0, enableAutoScale=True, autoScaleFormula=FORMULA)
    bench.tick()
    for _ in range(4):
        bench.tick(seconds=30)
    ages = [(bench.now - sample.at).total_seconds() for sample in pool.samples["PendingTasks"]]
    assert sorted(set(ages)) == [0, 30, 60, 90, 120]
