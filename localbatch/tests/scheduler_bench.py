"""A store with its scheduler and a manual clock: no threads, processes or waiting."""

from datetime import datetime, timedelta, timezone

from localbatch import wire
from localbatch.account.records import Job, KillRun, Pool, RemoveFiles, Report, StartRun, Stated
from localbatch.account.store import Store, key_of
from localbatch.api import request_bodies
from localbatch.api.properties import read_body
from localbatch.rules.agenda import PACES
from localbatch.rules.creation import new_task
from localbatch.rules.scheduler import Scheduler
from localbatch.testing import MACHINE_JSON

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
COMMAND = {"commandLine": "true"}


class Bench:
    """A store with its scheduler and a manual clock."""

    def __init__(self, pace="instant"):
        self.store = Store()
        self.scheduler = Scheduler(self.store, PACES[pace])
        self.now = START
        self.started: list[StartRun] = []
        self.killed: list[int] = []
        self.removed: list[str] = []

    def tick(self, **later):
        """Advance the clock, and tick until nothing is due."""
        self.now += timedelta(**later)
        actions = []
        for _ in range(50):
            some, wake_at = self.scheduler.tick(self.now)
            actions += some
            if wake_at is None or wake_at > self.now:
                break
        self.started = [action for action in actions if isinstance(action, StartRun)]
        self.killed = [action.run_id for action in actions if isinstance(action, KillRun)]
        self.removed = [action.directory for action in actions if isinstance(action, RemoveFiles)]
        return wake_at

    def finish(self, runs=None, exit_code=0, failure=None):
        runs = self.started if runs is None else runs
        self.store.reports.extend(Report(run_id=run.run_id, exit_code=exit_code, failure=failure) for run in runs)
        self.tick()

    def pool(self, nodes=1, **body):
        body = {"id": "pool", **MACHINE_JSON} | body
        pool = Pool(
            id=body["id"],
            spec=request_bodies.pool_spec(read_body(body, "pool")),
            etag="",
            created_at=self.now,
            modified_at=self.now,
            state="active",
            state_at=self.now,
            allocation=Stated(state="resizing", state_at=self.now),
            target_dedicated=nodes,
        )
        self.store.add_pool(pool)
        if pool.spec["enableAutoScale"]:
            self.scheduler.pools.enable_autoscale(pool, self.now)
        return pool

    def job(self, **body):
        body = {"id": "job", "poolInfo": {"poolId": "pool"}} | body
        spec = request_bodies.job_spec(read_body(body, "job"))
        expires_at = wire.expiry(self.now, spec["constraints"]["maxWallClockTime"])
        job = Job(
            id=body["id"],
            key=key_of(body["id"]),
            spec=spec,
            etag="",
            created_at=self.now,
            modified_at=self.now,
            state="active",
            state_at=self.now,
            expires_at=expires_at,
        )
        self.store.add_job(job)
        return job

    def task(self, job, task_id="task", **body):
        spec = request_bodies.task_spec(read_body({"id": task_id} | COMMAND | body, "task"), job)
        task = new_task(self.store, job, task_id, spec, self.now)
        self.store.add_task(job, task)
        return task
