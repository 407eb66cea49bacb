"""`make up`: its servers, its deployments, use from a second terminal, and shutdown."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import urllib.request
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests_support import wait_until
from up_support import USUAL_PORTS, Up, make_checkout

from flows.servers.addresses import read_published_addresses

# Two starts of a Prefect server, perhaps on a busy machine.
pytestmark = pytest.mark.timeout(600)

RUN_SECONDS = 120


@pytest.fixture
def own_up(tmp_path):
    """A separate `make up` that is not started yet."""
    instance = Up(tmp_path, cwd=make_checkout(tmp_path / "topn"))
    yield instance
    instance.stop()


def text_file():
    Path("a.txt").write_text(f"one two two {os.getcwd()}")
    return os.path.abspath("a.txt")


@pytest.mark.xdist_group("up")
def test_each_printed_address_answers_on_free_port(up):
    addresses = re.findall(r"^http://\S+$", up.output, re.MULTILINE)
    assert len(addresses) == 4
    assert not {urlsplit(address).port for address in addresses} & set(USUAL_PORTS)
    with urllib.request.urlopen(f"{up.api_url}/health") as answer:
        assert answer.status == 200
    # The pages use the address of this API.
    with urllib.request.urlopen(f"{up.pages_url}/ui-settings") as answer:
        assert json.load(answer)["api_url"] == up.api_url


@pytest.mark.xdist_group("up")
def test_deployments_have_scheduled_runs(up):
    deployments = {
        found["id"]: found for found in up.post("/deployments/filter", flows={"name": {"any_": ["topn", "sweep"]}})
    }
    schedules = {(found["name"], found["schedules"][0]["schedule"]["cron"]) for found in deployments.values()}
    assert schedules == {("default", "0 2 * * *"), ("default", "0 * * * *")}

    def scheduled():
        runs = up.post("/flow_runs/filter", flow_runs={"state": {"type": {"any_": ["SCHEDULED"]}}})
        return {run["deployment_id"] for run in runs if run["auto_scheduled"]}

    wait_until(lambda: scheduled().issuperset(deployments), "the next nights and hours are scheduled")


@pytest.mark.xdist_group("up")
def test_bad_parameter_creates_no_run(up):
    before = up.runs()
    done = up.deploy_run("-p", "num_words=0")
    assert done.returncode == 1
    assert "Validation failed for field 'num_words'" in " ".join((done.stdout + done.stderr).split())
    assert up.runs() == before


@pytest.mark.xdist_group("up")
def test_topn_run_finds_running_servers(up):
    done = up.second_terminal("topn_command", "run", "--json", text_file())
    assert done.returncode == 0, done.stderr
    assert "starting" not in done.stderr
    flow_run_id = json.loads(done.stdout)["run"].split("-")[1]
    assert flow_run_id in {run.replace("-", "") for run in up.runs()}


def test_kill_crashes_runs_and_ctrl_c_cancels_them(own_up):
    """No process is left in either case, and the next start is not blocked by the interrupted run."""
    own_up.start()
    killed = start_run(own_up)
    own_up.process.kill()
    own_up.process.wait()
    wait_until(lambda: own_up.processes() == [], "no process is left")
    assert read_published_addresses(own_up.state_folder, lambda: None) == {}

    own_up.start()
    assert own_up.state(killed) == "CRASHED"
    # Only one run may be active at a time.
    cancelled = start_run(own_up)
    assert own_up.end() == 0
    assert "Cancelling 1 run" in own_up.output
    assert own_up.processes() == []
    assert not (own_up.cwd / "prefect.toml").exists()
    assert read_published_addresses(own_up.state_folder, lambda: None) == {}
    assert recorded_states(own_up) == {killed: "CRASHED", cancelled: "CANCELLED"}


def start_run(up):
    """Create a run for the worker, wait until it is running, and return its id."""
    flow_run_id = up.create_run(inputs=[text_file()])
    wait_until(lambda: up.state(flow_run_id) == "RUNNING", "the run is under way", seconds=RUN_SECONDS)
    return flow_run_id


def recorded_states(up):
    """Read the states of the runs that no schedule created from the database of a stopped server."""
    with closing(sqlite3.connect(up.state_folder / "prefect.db")) as database:
        return dict(database.execute("SELECT id, state_type FROM flow_run WHERE NOT auto_scheduled").fetchall())


def test_dead_prefect_server_is_reported_and_stops_others(own_up):
    """The other processes stop although the end of their runs cannot be recorded."""
    own_up.start()
    [process] = [pid for pid, command in own_up.processes() if b"flows.servers.prefect_server" in command]
    os.kill(int(process), signal.SIGKILL)
    assert own_up.wait() == 1
    assert "The Prefect server ended by signal 9" in own_up.output
    wait_until(lambda: own_up.processes() == [], "no process is left")
