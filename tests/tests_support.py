"""Helpers for several test modules: an independent count, waits and process lists."""

from __future__ import annotations

import base64
import json
import os
import string
import time
import urllib.request
import uuid
from collections import Counter
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]

WAIT_SECONDS = 60

POLL_SECONDS = 0.02
MAX_POLL_SECONDS = 1.0

# The time between two checks of a condition, as a multiple of the time that a check takes.
WAIT_PER_CHECK = 5

# The first poll that sees the Batch tasks, and two more.
MAX_IDLE_POLLS = 3


def independent_count(text, n=3):
    """Count words, distinct words and the top `n` with the simplest code that meets the specification."""
    words = [word for word in (token.strip(string.punctuation) for token in text.split()) if word]
    counts = Counter(words)
    top = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:n]
    return len(words), len(counts), [list(pair) for pair in top]


def wait_until(condition, what, *, while_running=None, seconds=WAIT_SECONDS):
    """Wait until `condition` holds; fail on timeout, or when the process `while_running` ends first.

    A condition that takes long, such as a question to a server, is checked less often, so that others can use the machine.
    """
    started_at = time.monotonic()
    give_up_at = started_at + seconds
    while not condition():
        checked_at = time.monotonic()
        assert checked_at < give_up_at, f"timed out waiting for: {what}"
        assert while_running is None or while_running.poll() is None, f"process ended before: {what}"
        time.sleep(max(POLL_SECONDS, min(MAX_POLL_SECONDS, WAIT_PER_CHECK * (checked_at - started_at))))
        started_at = time.monotonic()


def send_to_prefect(api_url, path, query=None, *, password=None, timeout=30):
    """Send a query to a Prefect server, by default to that of the tests, and return the document in the response."""
    credentials = base64.b64encode((password or os.environ["PREFECT_API_AUTH_STRING"]).encode()).decode()
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {credentials}"}
    body = None if query is None else json.dumps(query).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{api_url}{path}", body, headers), timeout=timeout) as response:
        return json.load(response)


def watch_requests(batch):
    """Return a function that returns the requests to a local Batch account since now. The account keeps only the last."""
    earlier = {id(record): record for record in list(batch.requests)}
    return lambda: [record for record in list(batch.requests) if id(record) not in earlier]


@contextmanager
def new_container(blobs, kind, metadata=None):
    """Create a container, yield its name, and delete it."""
    name = f"{kind}-{uuid.uuid4().hex[:12]}"
    blobs.create_container(name, metadata or {})
    yield name
    blobs.delete_container(name)


def read_blob(blobs, container, name):
    """Return the whole content of a blob."""
    return b"".join(blobs.download(container, name))


def resources_of_runs():
    """Return the names of all jobs, pools and containers of runs in the configured Azure."""
    from tasks.azure.accounts import batch_account, blob_account  # noqa: PLC0415 - after the environment is set
    from tasks.model.naming import PARTIALS_CONTAINER  # noqa: PLC0415 - as above

    return {
        *(f"job {job.job_id}" for job in batch_account().list_jobs("topn-")),
        *(f"pool {pool.pool_id}" for pool in batch_account().list_pools("topn-")),
        *(f"container {name}" for name in blob_account().list_containers("topn-") if name != PARTIALS_CONTAINER),
    }


def all_processes():
    """Yield the id, the command line and the environment of each process that this user may read."""
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with suppress(OSError):
                yield name, _read(f"/proc/{name}/cmdline"), _read(f"/proc/{name}/environ")


def _read(path):
    """Read a file of /proc at once. With `pathlib`, reading all processes takes four times as long."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return b"".join(iter(lambda: os.read(descriptor, 1 << 16), b""))
    finally:
        os.close(descriptor)


def processes_of(marker):
    """List the processes whose command line or environment contains `marker`."""
    text = marker.encode()
    return [(pid, command) for pid, command, environment in all_processes() if text in command + environment]


class MovableClock:
    """A clock that `sleep` advances at once, after which it calls `on_sleep`."""

    def __init__(self, on_sleep=lambda: None):
        self._now = datetime.now(timezone.utc)
        self._on_sleep = on_sleep
        self.sleeps = 0
        self.slept_seconds = 0.0

    def now(self):
        return self._now

    def advance(self, by):
        self._now += by

    def sleep(self, seconds):
        self.sleeps += 1
        self.slept_seconds += seconds
        self._now += timedelta(seconds=seconds)
        self._on_sleep()


def polling_clock():
    """Return a clock that advances by the full sleep but only waits for `POLL_SECONDS`."""
    return MovableClock(on_sleep=lambda: time.sleep(POLL_SECONDS))


def pool_has(batch, run, state):
    """Return a function that checks whether the run's pool has one node, in `state`."""
    return lambda: [node.state for node in batch.list_nodes(run.name)] == [state]


class Submitted:
    """Chunks that have all been submitted."""

    def __init__(self, *chunks):
        self._chunks = list(chunks)
        self.open_count = 0

    def arrived(self):
        chunks, self._chunks = self._chunks, []
        return chunks


def leftovers_of(batch, blobs, flow_run_id, keep=None):
    """Return the resources of a flow run, kept ones included unless `keep` has them."""
    from tasks.model.naming import run_prefix  # noqa: PLC0415 - after the environment is set
    from tasks.model.run import KEEP_NOTHING  # noqa: PLC0415 - as above
    from tasks.steps.cleanup import find_resources, of_run, without_kept  # noqa: PLC0415 - as above

    found = of_run(find_resources(batch, blobs, run_prefix(str(flow_run_id))), str(flow_run_id))
    assert not found.errors
    return without_kept(found, keep or KEEP_NOTHING)
