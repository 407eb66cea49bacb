"""Measures an account of 100,000 Batch tasks and 1,000 nodes, without processes or HTTP.

python localbatch/tests/measure_scale.py [TASKS] [NODES]
"""

import json
import statistics
import sys
import time
from collections import deque
from datetime import datetime, timezone
from urllib.parse import parse_qsl

from localbatch.account.records import Report, StartRun
from localbatch.account.store import Store
from localbatch.api.requests import Call
from localbatch.api.routes import call_handler, match_route
from localbatch.rules.agenda import PACES
from localbatch.rules.scheduler import Scheduler
from localbatch.testing import MACHINE_JSON

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
OUTPUT = {"filePattern": "*", "destination": {"container": {"containerUrl": "http://c"}}}
FILTERS = (
    "",
    "$select=id,state",
    "$filter=state eq 'completed'&$select=id,executionInfo",
    "$filter=executionInfo/result eq 'failure'",
    "$filter=state eq 'completed' and stateTransitionTime gt DateTime'2026-01-01T00:00:00Z'&$select=id",
)


class Measure:
    def __init__(self):
        self.store = Store()
        self.scheduler = Scheduler(self.store, PACES["instant"])

    def call(self, method, path, body=None, query=""):
        route, parameters = match_route(method, path)
        call = Call(
            store=self.store,
            scheduler=self.scheduler,
            root_of=lambda _node: None,
            method=method,
            parameters=parameters,
            query={name.lower(): value for name, value in parse_qsl(query)},
            headers={},
            has_key=True,
            body=json.dumps(body).encode() if body else b"",
            base="http://localhost",
            raw_path=path,
            raw_query=query,
            now=NOW,
        )
        return call_handler(route, call)

    def settle(self):
        actions, ticks = [], 0
        while True:
            some, wake_at = self.scheduler.tick(NOW)
            actions += some
            ticks += 1
            if wake_at is None or wake_at > NOW:
                return [action for action in actions if isinstance(action, StartRun)], ticks

    def pages(self, query):
        times, skip = [], ""
        while True:
            began = time.perf_counter()
            body = json.loads(self.call("GET", "/jobs/j/tasks", query=query + skip).body)
            times.append(time.perf_counter() - began)
            if "odata.nextLink" not in body:
                return times
            skip = "&$skiptoken=" + body["odata.nextLink"].partition("$skiptoken=")[2]


def timed(what, work, each=1):
    began = time.perf_counter()
    result = work()
    print(f"{what}: {(time.perf_counter() - began) * 1000 / each:.2f} ms")
    return result


def main(tasks=100_000, nodes=1_000):
    measure = Measure()
    call, scheduler = measure.call, measure.scheduler
    call("POST", "/jobs", {"id": "j", "poolInfo": {"poolId": "p"}})

    def add():
        for first in range(0, tasks, 100):
            ids = [f"t{number:06}" for number in range(first, first + 100)]
            group = [{"id": task_id, "commandLine": "true", "outputFiles": [OUTPUT]} for task_id in ids]
            call("POST", "/jobs/j/addtaskcollection", {"value": group})

    timed("a collection of 100 tasks", add, each=tasks // 100)
    call("POST", "/pools", {"id": "p", **MACHINE_JSON, "targetDedicatedNodes": nodes})
    runs, _ = timed(f"{nodes} nodes up, {nodes} tasks started", measure.settle)
    timed("a tick when nothing happened", lambda: scheduler.tick(NOW))
    queue, times = deque(runs), []
    for _ in range(2000):
        measure.store.reports.append(Report(run_id=queue.popleft().run_id, exit_code=0))
        began = time.perf_counter()
        actions, _ = scheduler.tick(NOW)
        times.append(time.perf_counter() - began)
        queue.extend(action for action in actions if isinstance(action, StartRun))
    print(f"a tick with one end and one start: median {statistics.median(times) * 1000:.3f} ms")
    measure.store.reports.extend(Report(run_id=run.run_id, exit_code=0) for run in queue)
    timed(f"a tick with {len(queue)} ends and {len(queue)} starts", lambda: scheduler.tick(NOW))
    for query in FILTERS:
        times = measure.pages(query)
        print(
            f"list {query!r}: {len(times)} pages, median {statistics.median(times) * 1000:.1f} ms, max {max(times) * 1000:.1f} ms"
        )
    for path in ("/jobs/j/taskcounts", "/pools/p/nodes", "/nodecounts", "/pools/p"):
        timed(f"GET {path}", lambda path=path: call("GET", path))
    call("DELETE", "/jobs/j")
    timed("the deletion of the job", measure.settle)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
