"""`topn` as a process: its own servers, exit codes, signals and leftover processes."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests_support import REPOSITORY, processes_of, send_to_prefect, wait_until, watch_requests

from flows.servers.processes import PrefectServer

PROFILE = 'active = "ephemeral"\n\n[profiles.ephemeral]\nPREFECT_SERVER_ALLOW_EPHEMERAL_MODE = "true"\n'


@pytest.fixture
def data():
    """Copy the sample texts to the current folder and return their paths."""
    shutil.copytree(REPOSITORY / "data", "data")
    return sorted(str(path) for path in Path("data").glob("*.txt"))


def test_run_starts_own_servers_and_keeps_history(topn_alone, data):
    """With a Prefect profile that names no server, the run starts exactly one."""
    profile = Path(topn_alone.environment["HOME"], ".prefect/profiles.toml")
    profile.parent.mkdir()
    profile.write_text(PROFILE)

    done = topn_alone("run", *data, timeout=240)

    assert done.returncode == 0, done.stderr
    assert "starting a local one for this run" in done.stderr
    assert "Starting temporary server" not in done.stderr
    assert "hamlet.txt" in done.stdout
    state = topn_alone.environment["TOPN_STATE"]
    wait_until(lambda: not processes_of(state), "every process has ended")

    with PrefectServer(Path(state)) as server:
        server.wait()
        names = completed_task_runs(server)
    assert sorted(names) == sorted(
        ["sweep", "start", "plan", "create containers", "create pool", "create job", "plan merges", "report"]
        + ["wait for Batch tasks"] * 2
        + [f"{step} {n} of {len(data)}" for step in ("stage", "submit", "collect") for n in range(1, len(data) + 1)]
        + [f"{step} merge 1 of 1" for step in ("stage", "submit", "collect")]
    )


CALLS = """\
import asyncio, os
from flows.api import run
from flows.topn import topn

before = dict(os.environ)

async def main():
    print(await asyncio.to_thread(run, topn, ["a.txt"]))
    print(run(topn, ["a.txt", "b.txt"]).rows[-1])

asyncio.run(main())
assert dict(os.environ) == before
"""


def test_each_call_from_python_starts_own_servers(topn_alone):
    """The first call is in a thread, the second in that of the running event loop."""
    Path("a.txt").write_text("one")
    Path("b.txt").write_text("two two")
    environment = topn_alone.environment_with({"PYTHONPATH": str(REPOSITORY)})
    done = subprocess.run(
        [sys.executable, "-c", CALLS], capture_output=True, text=True, env=environment, timeout=240, check=False
    )
    assert (done.returncode, done.stdout) == (
        0,
        "<RunReport: 1 file: 1 counted>\n{'file': 'b.txt', 'rank': 1, 'word': 'two', 'count': 2}\n",
    ), done.stderr
    assert done.stderr == "No Azure is configured: starting a local one for this run.\n" * 2
    state = topn_alone.environment["TOPN_STATE"]
    wait_until(lambda: not processes_of(state), "every process has ended")


def completed_task_runs(server):
    runs = send_to_prefect(server.api_url, "/task_runs/filter", {}, password=server.password)
    assert {run["state_type"] for run in runs} == {"COMPLETED"}
    return [run["name"] for run in runs]


def test_bad_usage_exits_2(topn_alone):
    done = topn_alone("run", "missing.txt")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "missing.txt does not exist: name a file, a folder, or a pattern that matches a file.\n"
    assert not Path(topn_alone.environment["TOPN_STATE"]).exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_cleans_up_and_exits_130(topn, data, local_azure, assert_nothing_left, number):
    requests = watch_requests(local_azure.batch)
    process = topn.start("run", *data)

    def job_exists():
        return any((record.method, record.path) == ("POST", "/jobs") for record in requests())

    wait_until(job_exists, "the job was created", while_running=process)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)

    assert process.returncode == 130, (output, errors)
    assert "Traceback" not in errors
    assert_nothing_left()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_stopped_run_leaves_no_process(topn_alone, data, number):
    process = topn_alone.start("run", *data)
    state = topn_alone.environment["TOPN_STATE"]
    log = Path(state, "localbatch.log")
    wait_until(lambda: log.exists() and "ready" in log.read_text(), "the local Azure is up", while_running=process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)

    assert process.returncode == (130 if number is signal.SIGINT else -signal.SIGKILL), errors
    wait_until(lambda: not processes_of(state), "every process has ended")
