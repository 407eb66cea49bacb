"""Faults in the scheduler: lost nodes, failed allocations, endless tasks."""

import pytest
from scheduler_bench import COMMAND, Bench

from localbatch.account.records import Report
from localbatch.account.states import IllegalTransition
from localbatch.rules.standing_faults import AllocationFailure


@pytest.fixture
def bench():
    return Bench()


def start(bench, nodes=1, **body):
    """A pool whose only node runs a Batch task, in a job of its own."""
    pool = bench.pool(nodes, **body)
    task = bench.task(bench.job())
    bench.tick()
    return pool, task


def test_preempted_node_returns_with_its_id(bench):
    pool, task = start(bench)
    node, run = task.node, bench.started[0]
    bench.scheduler.nodes.preempt(bench.store.node("POOL", node.id.upper()), bench.now)
    bench.tick()
    assert (node.state, list(pool.nodes), pool.count_nodes(dedicated=True)) == ("preempted", [node.id], 1)
    assert (task.state, task.execution.requeue_count, task.node, bench.killed) == ("active", 1, None, [run.run_id])
    assert "" in bench.removed
    bench.tick(seconds=60)
    assert (node.state, task.state, task.node) == ("running", "running", node)


def test_lost_node_recovers_at_once(bench):
    _, task = start(bench)
    node = task.node
    bench.scheduler.nodes.lose(bench.store.node("pool", node.id), bench.now)
    bench.tick(hours=1)
    assert (node.state, task.state, task.execution.requeue_count) == ("unknown", "active", 1)
    bench.scheduler.nodes.recover(bench.store.node("pool", node.id), bench.now)
    assert node.state == "creating"
    bench.tick()
    assert task.state == "running"


def test_unusable_node_has_errors(bench):
    _, task = start(bench)
    node = task.node
    bench.scheduler.nodes.make_unusable(bench.store.node("pool", node.id), "DiskFull", "No space", bench.now)
    bench.tick()
    assert (node.state, node.errors, task.state) == (
        "unusable",
        [{"code": "DiskFull", "message": "No space"}],
        "active",
    )
    assert not bench.started
    bench.scheduler.nodes.recover(bench.store.node("pool", node.id), bench.now)
    assert node.errors == []


def test_removed_node_requeues_its_tasks(bench):
    pool, task = start(bench, nodes=2)
    node = task.node
    bench.scheduler.nodes.remove_abruptly(bench.store.node("pool", node.id), bench.now)
    assert node.id not in pool.nodes
    bench.tick()
    assert (task.state, task.node is node, task.execution.requeue_count) == ("running", False, 1)


def test_preemption_repeats_the_preparation_task(bench):
    pool = bench.pool()
    job = bench.job(jobPreparationTask=COMMAND)
    task = bench.task(job)
    bench.tick()
    bench.scheduler.nodes.preempt(bench.store.node("pool", next(iter(pool.nodes))), bench.now)
    bench.tick(seconds=60)
    assert (task.state, [run.directory for run in bench.started]) == (
        "preparing",
        ["workitems/job/job-1/jobpreparation"],
    )
    assert list(job.prepared.values()) == list(pool.nodes.values())


def test_lost_node_cannot_be_preempted(bench):
    _, task = start(bench)
    node_id = task.node.id
    bench.scheduler.nodes.lose(bench.store.node("pool", node_id), bench.now)
    with pytest.raises(IllegalTransition):
        bench.scheduler.nodes.preempt(bench.store.node("pool", node_id), bench.now)
    assert task.execution.requeue_count == 1


@pytest.mark.parametrize("key", ["pool", "*"])
def test_failed_allocation_has_an_error(bench, key):
    failure = AllocationFailure({"code": "AccountCoreQuotaReached", "message": "No cores"})
    bench.scheduler.faults.allocation_failures[True][key] = failure
    pool = bench.pool(2)
    bench.tick()
    assert (pool.allocation.state, pool.nodes) == ("steady", {})
    assert pool.resize_errors == [{"code": "AccountCoreQuotaReached", "message": "No cores"}]
    bench.scheduler.pools.resize(pool, 0, 0, "requeue", bench.now)
    bench.tick()
    assert (pool.allocation.state, pool.resize_errors) == ("steady", [])
    del bench.scheduler.faults.allocation_failures[True][key]
    bench.scheduler.pools.resize(pool, 1, 0, "requeue", bench.now)
    bench.tick()
    assert len(pool.nodes) == 1


SLOW = {"code": "AllocationTimedout", "message": "Slow"}


def test_stalled_resize_continues_without_fault(bench):
    bench.scheduler.faults.allocation_failures[True]["pool"] = AllocationFailure(SLOW, stalls=True)
    pool = bench.pool(1)
    bench.tick(minutes=14)
    assert (pool.allocation.state, pool.nodes) == ("resizing", {})
    bench.scheduler.faults.allocation_failures[True].clear()
    bench.tick()
    assert (pool.allocation.state, len(pool.nodes)) == ("steady", 1)


def test_stalled_resize_ends_at_timeout(bench):
    bench.scheduler.faults.allocation_failures[True]["pool"] = AllocationFailure(SLOW, stalls=True)
    pool = bench.pool(1, resizeTimeout="PT5M")
    bench.tick(minutes=4)
    assert pool.allocation.state == "resizing"
    bench.tick(minutes=1)
    assert (pool.allocation.state, pool.resize_errors[0]["code"]) == ("steady", "AllocationTimedout")


def test_start_task_fault_sets_exit_code(bench):
    bench.scheduler.faults.start_task_exit_codes["*"] = 7
    pool = bench.pool(1, startTask=COMMAND)
    bench.tick()
    node = next(iter(pool.nodes.values()))
    assert (node.state, node.start_task.execution.exit_code, bench.started) == ("starttaskfailed", 7, [])


def test_endless_task_ends_without_the_fault(bench):
    _, task = start(bench)
    bench.scheduler.faults.endless_tasks.add("task")
    bench.finish()
    assert task.state == "running"
    bench.scheduler.faults.endless_tasks.clear()
    bench.tick()
    assert (task.state, task.execution.exit_code) == ("completed", 0)


def test_endless_task_can_be_terminated(bench):
    bench.scheduler.faults.endless_tasks.add("*")
    _, task = start(bench)
    run = bench.started
    bench.finish()
    bench.scheduler.tasks.terminate(bench.store.jobs["job"], task, bench.now)
    bench.tick()
    assert (task.state, bench.killed, run[0].run_id in bench.store.runs) == ("completed", [run[0].run_id], False)


OUTPUT = [
    {
        "filePattern": "*",
        "destination": {"container": {"containerUrl": "http://c"}},
        "uploadOptions": {"uploadCondition": "tasksuccess"},
    }
]


@pytest.mark.parametrize(
    ("exit_code", "code"), [(0, "FileUploadMiscError"), (1, "FailureExitCode")], ids=["wanted", "unwanted"]
)
def test_upload_fault_fails_the_task(bench, exit_code, code):
    bench.scheduler.faults.failing_uploads["task"] = "FileUploadMiscError"
    bench.pool()
    task = bench.task(bench.job(), outputFiles=OUTPUT)
    bench.tick()
    assert bench.started[0].output_files == ()
    bench.finish(exit_code=exit_code)
    assert (task.execution.exit_code, task.execution.failure["code"]) == (exit_code, code)


def test_upload_fault_needs_output_files(bench):
    bench.scheduler.faults.failing_uploads["*"] = "FileUploadMiscError"
    _, task = start(bench)
    bench.finish()
    assert task.execution.result == "success"


def test_late_removal_is_a_resize_error(bench):
    pool, task = start(bench, resizeTimeout="PT5M")
    bench.scheduler.pools.resize(pool, 0, 0, "taskcompletion", bench.now)
    bench.tick(minutes=5)
    assert (pool.allocation.state, pool.resize_errors[0]["code"]) == ("steady", "RemoveNodesFailed")
    bench.store.reports.append(Report(run_id=task.run.id, exit_code=0))
    bench.tick()
    assert (task.state, pool.nodes) == ("completed", {})
