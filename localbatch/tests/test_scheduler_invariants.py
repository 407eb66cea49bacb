"""Invariants of an account under random requests, faults and time."""

import contextlib
import random
import secrets
from datetime import timedelta
from unittest import mock

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from scheduler_bench import COMMAND, Bench

from localbatch.account import states
from localbatch.account.records import SCHEDULABLE, Chore, KillRun, Report, StartRun, count_name
from localbatch.errors import ServiceError
from localbatch.rules.standing_faults import AllocationFailure

NODE_EVENTS = [
    *("preempt", "lose", "break", "remove", "recover", "start"),
    *("reboot", "reimage", "deallocate", "disable", "enable", "removenodes"),
]
POOLS = st.sampled_from(["pool", "other"])
JOBS = st.sampled_from(["a", "b"])
TASKS = st.sampled_from([str(number) for number in range(1, 9)])
OPTIONS = st.sampled_from(["requeue", "terminate", "taskcompletion"])
CONDITIONS = st.sampled_from(
    [
        None,
        {"default": {"dependencyAction": "satisfy", "jobAction": "none"}},
        {"default": {"jobAction": "disable"}, "exitCodes": [{"code": 1, "exitOptions": {"jobAction": "none"}}]},
    ]
)
DEPENDENCIES = st.sampled_from([None, {"taskIds": ["1", "2"]}, {"taskIdRanges": [{"start": 1, "end": 3}]}])


class Account(RuleBasedStateMachine):
    """Random requests, faults, reports of runs and time. A refused request is allowed."""

    def __init__(self):
        super().__init__()
        # The ids of nodes decide which node a rule chooses. Hypothesis seeds `random`, so a repeated example has equal ids;
        # otherwise it could take another course, which Hypothesis reports as FlakyStrategyDefinition.
        self.node_ids = mock.patch.object(secrets, "token_hex", lambda size: random.randbytes(size).hex())
        self.node_ids.start()
        self.bench = Bench()
        self.store, self.scheduler = self.bench.store, self.bench.scheduler
        self.running = {}
        self.ended = {}

    def teardown(self):
        self.node_ids.stop()

    def choose(self, records, data):
        return data.draw(st.sampled_from(sorted(records))) if records else None

    def attempt(self, call, *args, **options):
        with contextlib.suppress(ServiceError, states.IllegalTransition):  # Refused, and nothing changed.
            call(*args, **options)

    @rule(pool_id=POOLS, nodes=st.integers(0, 3), slots=st.integers(1, 4), start=st.booleans(), wait=st.booleans())
    def create_pool(self, pool_id, nodes, slots, start, wait):
        task = {"startTask": COMMAND | {"maxTaskRetryCount": 1, "waitForSuccess": wait}} if start else {}
        self.attempt(self.bench.pool, nodes, id=pool_id, taskSlotsPerNode=slots, **task)

    @rule(pool_id=POOLS, dedicated=st.integers(0, 3), low=st.integers(0, 2), option=OPTIONS)
    def resize(self, pool_id, dedicated, low, option):
        pool = self.store.pools.get(pool_id)
        if pool and pool.state == "active" and pool.allocation.state == "steady":
            self.scheduler.pools.resize(pool, dedicated, low, option, self.bench.now)

    @rule(pool_id=POOLS)
    def stop_resize(self, pool_id):
        if pool_id in self.store.pools:
            self.attempt(self.scheduler.pools.stop_resize, self.store.pools[pool_id], self.bench.now)

    @rule(pool_id=POOLS)
    def delete_pool(self, pool_id):
        if pool_id in self.store.pools:
            self.attempt(self.scheduler.pools.delete, self.store.pools[pool_id], self.bench.now)

    @rule(
        job_id=JOBS,
        pool_id=POOLS,
        prepared=st.booleans(),
        action=st.booleans(),
        ends=st.booleans(),
        limit=st.sampled_from([-1, 1]),
        retries=st.integers(0, 1),
        hours=st.sampled_from([1, 1000]),
    )
    def create_job(self, job_id, pool_id, prepared, action, ends, limit, retries, hours):
        options = {"jobPreparationTask": COMMAND, "jobReleaseTask": COMMAND} if prepared else {}
        self.attempt(
            self.bench.job,
            id=job_id,
            poolInfo={"poolId": pool_id},
            usesTaskDependencies=True,
            onTaskFailure="performexitoptionsjobaction" if action else "noaction",
            onAllTasksComplete="terminatejob" if ends else "noaction",
            maxParallelTasks=limit,
            constraints={"maxTaskRetryCount": retries, "maxWallClockTime": f"PT{hours}H"},
            **options,
        )

    @rule(job_id=JOBS, how=st.sampled_from(["terminate", "delete", "force", "disable", "enable"]), option=OPTIONS)
    def change_job(self, job_id, how, option):
        job, now = self.store.jobs.get(job_id), self.bench.now
        if not job:
            return
        if how == "terminate":
            self.attempt(self.scheduler.jobs.terminate, job, "x", now)
        elif how in {"delete", "force"}:
            self.attempt(self.scheduler.jobs.delete, job, now, force=how == "force")
        elif how == "disable":
            self.attempt(self.scheduler.jobs.disable, job, {"taskcompletion": "wait"}.get(option, option), now)
        else:
            self.attempt(self.scheduler.jobs.enable, job, now)

    @rule(
        job_id=JOBS,
        task_id=TASKS,
        slots=st.integers(1, 3),
        depends=DEPENDENCIES,
        conditions=CONDITIONS,
        limited=st.booleans(),
    )
    def create_task(self, job_id, task_id, slots, depends, conditions, limited):
        job = self.store.jobs.get(job_id)
        if not job or job.state in {"terminating", "completed", "deleting"}:
            return
        body = {"requiredSlots": slots} | ({"dependsOn": depends} if depends else {})
        if conditions and job.spec["onTaskFailure"] != "noaction":
            body["exitConditions"] = conditions
        if limited:
            body["constraints"] = {"maxWallClockTime": "PT10M", "retentionTime": "PT20M"}
        self.attempt(self.bench.task, job, task_id, **body)

    @rule(job_id=JOBS, task_id=TASKS, how=st.sampled_from(["terminate", "reactivate", "delete"]))
    def change_task(self, job_id, task_id, how):
        job = self.store.jobs.get(job_id)
        task = job.tasks.get(task_id) if job else None
        if not task:
            return
        if how == "delete":
            self.scheduler.tasks.delete(job, task, self.bench.now)
        elif how == "terminate":
            self.attempt(self.scheduler.tasks.terminate, job, task, self.bench.now)
        elif task.state == "completed" and task.execution.failure and job.state in {"active", "disabled"}:
            self.ended.pop(id(task), None)
            self.scheduler.tasks.reactivate(job, task, self.bench.now)

    @rule(
        data=st.data(),
        how=st.sampled_from(NODE_EVENTS),
        option=OPTIONS,
    )
    def change_node(self, data, how, option):
        nodes = {node.id: node for pool in self.store.pools.values() for node in pool.nodes.values()}
        node_id = self.choose(nodes, data)
        if not node_id:
            return
        node, now, scheduler = nodes[node_id], self.bench.now, self.scheduler
        calls = {
            "preempt": lambda: scheduler.nodes.preempt(node, now),
            "lose": lambda: scheduler.nodes.lose(node, now),
            "break": lambda: scheduler.nodes.make_unusable(node, "X", "y", now),
            "remove": lambda: scheduler.nodes.remove_abruptly(node, now),
            "recover": lambda: scheduler.nodes.recover(node, now),
            "start": lambda: scheduler.nodes.start(node, now),
            "disable": lambda: node.state in SCHEDULABLE and scheduler.nodes.disable_scheduling(node, option, now),
            "enable": lambda: scheduler.nodes.enable_scheduling(node, now),
            "removenodes": lambda: self.remove_nodes(node, option),
        }
        self.attempt(calls.get(how) or (lambda: scheduler.nodes.maintain(node, how, option, now)))

    def remove_nodes(self, node, option):
        pool = self.store.pools[node.pool_id]
        if pool.state == "active" and pool.allocation.state == "steady":
            self.scheduler.pools.remove_nodes(pool, [node], option, self.bench.now)

    @rule(fault=st.sampled_from(["allocation", "stall", "stall spot", "start_task", "endless", "upload", "none"]))
    def set_faults(self, fault):
        scheduler = self.scheduler
        scheduler.faults.clear()
        error = {"code": "AllocationFailed", "message": "x"}
        if fault in {"allocation", "stall", "stall spot"}:
            failure = AllocationFailure(error, stalls=fault != "allocation")
            for dedicated in (False,) if fault == "stall spot" else (True, False):
                scheduler.faults.allocation_failures[dedicated]["*"] = failure
        elif fault == "start_task":
            scheduler.faults.start_task_exit_codes["pool"] = 1
        elif fault == "endless":
            scheduler.faults.endless_tasks.add("1")
        elif fault == "upload":
            scheduler.faults.failing_uploads["*"] = "FileUploadMiscError"

    @rule(minutes=st.sampled_from([0, 0, 1, 30, 120]))
    def tick(self, minutes):
        self.bench.now += timedelta(minutes=minutes)
        for _ in range(30):
            actions, wake_at = self.scheduler.tick(self.bench.now)
            for action in actions:
                if isinstance(action, StartRun):
                    self.running[action.run_id] = action
                elif isinstance(action, KillRun):
                    self.running.pop(action.run_id, None)
            if wake_at is None or wake_at > self.bench.now:
                return
        raise AssertionError("An account that nobody touches must come to rest")

    @precondition(lambda self: self.running)
    @rule(data=st.data(), code=st.sampled_from([0, 0, 1, 3, None]))
    def end_run(self, data, code):
        run_id = self.choose(self.running, data)
        del self.running[run_id]
        failure = {"code": "BlobNotFound"} if code is None else None
        self.store.reports.append(Report(run_id=run_id, exit_code=code, failure=failure))

    # What must hold.

    @invariant()
    def no_node_has_more_tasks_than_slots(self):
        for pool in self.store.pools.values():
            for node in pool.nodes.values():
                held = sum(task.slots_held for task in node.tasks.values())
                assert 0 <= held == node.slots_used <= node.slots
                assert (node.state == "running") <= bool(node.tasks)
                assert node.state != "idle" or not node.tasks

    @invariant()
    def counts_match_tasks(self):
        for job in self.store.jobs.values():
            for name in ("active", "running", "succeeded", "failed"):
                counted = [task for task in job.tasks.values() if count_name(task) == name]
                assert getattr(job.task_counts, name) == len(counted)
                assert getattr(job.slot_counts, name) == sum(task.slots for task in counted)

    @invariant()
    def tasks_are_in_one_place(self):
        for job in self.store.jobs.values():
            for key, task in job.tasks.items():
                is_placed = task.state in {"preparing", "running"}
                assert is_placed == (key in job.placed)
                assert (task in job.waiting) == (task.state == "active" and not task.unmet)
                if is_placed:
                    assert task.node.tasks[task.key] is task
                assert (task.state == "running") == (task.run is not None)
            assert all(job.tasks.get(key) is task for key, task in job.placed.items())

    @invariant()
    def completed_tasks_stay_completed(self):
        for job in self.store.jobs.values():
            for task in job.tasks.values():
                if task.state == "completed":
                    seen = (task.execution.ended_at, task.execution.exit_code, task.execution.failure)
                    assert self.ended.setdefault(id(task), (task, seen)) == (task, seen)
                else:
                    assert self.ended.get(id(task), (None,))[0] is not task

    @invariant()
    def nothing_runs_on_absent_nodes(self):
        for run in self.store.runs.values():
            node = run.node
            pool = self.store.pools.get(node.pool_id)
            assert pool
            assert pool.nodes.get(node.id) is node
            assert node.runs[run.id] is run
            assert node.state not in {"preempted", "unknown", "unusable", "deallocated", "creating"}
            if run.job:
                assert self.store.jobs.get(run.job.key) is run.job
            if isinstance(run.owner, Chore):
                assert run.owner.state == "running"

    @invariant()
    def free_slots_are_known(self):
        for pool in self.store.pools.values():
            known = {node.id: free for free, nodes in pool.free._by_slots.items() for node in nodes.values()}
            assert known == {node.id: node.slots_free for node in pool.nodes.values() if node.slots_free}


Account.TestCase.settings = settings(max_examples=60, stateful_step_count=60, suppress_health_check=list(HealthCheck))
test_invariants_hold = Account.TestCase
