"""`make up`: everything in one terminal, found from another, gone after Ctrl-C, there again the next time."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests_support import wait_until
from up_support import Up

from flows.addresses import addresses_left, addresses_of_up
from tasks.errors import ConfigurationError

USUAL_PORTS = (4200, 10100, 10000)

# Two starts of a Prefect server, on a machine that may be busy.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def up(tmp_path_factory):
    """A running `make up`, on a machine whose usual ports are taken."""
    sockets = [socket.socket() for _ in USUAL_PORTS]
    for taken, port in zip(sockets, USUAL_PORTS, strict=True):
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):  # Somebody else has it: as good.
            taken.bind(("127.0.0.1", port))
            taken.listen()
    instance = Up(tmp_path_factory.mktemp("up"))
    try:
        yield instance.start()
    finally:
        instance.stop()
        for taken in sockets:
            taken.close()


@pytest.fixture
def own_up(tmp_path):
    """A `make up` of the test's own, not started yet."""
    instance = Up(tmp_path)
    yield instance
    instance.stop()


def text_file():
    Path("a.txt").write_text(f"one two two {os.getcwd()}")
    return os.path.abspath("a.txt")


def run_parameters():
    return ["-p", f"inputs={json.dumps([text_file()])}", "-p", f'output_folder="{os.path.abspath("results")}"']


def test_each_address_is_on_a_line_of_its_own_and_answers_on_a_free_port(up):
    addresses = re.findall(r"^http://\S+$", up.output, re.MULTILINE)
    assert len(addresses) == 4
    assert not {urlsplit(address).port for address in addresses} & set(USUAL_PORTS)
    with urllib.request.urlopen(f"{up.api_url}/health") as answer:
        assert answer.status == 200
    # The pages look for the API where it is.
    with urllib.request.urlopen(f"{up.pages_url}/ui-settings") as answer:
        assert json.load(answer)["api_url"] == up.api_url


def test_the_deployments_are_there_and_their_next_runs_are_scheduled(up):
    deployments = {found["id"]: found for found in up.ask("/deployments/filter")}
    schedules = {(found["name"], found["schedules"][0]["schedule"]["cron"]) for found in deployments.values()}
    assert schedules == {("default", "0 2 * * *"), ("default", "0 * * * *")}

    def scheduled():
        runs = up.ask("/flow_runs/filter", flow_runs={"state": {"type": {"any_": ["SCHEDULED"]}}})
        return {run["deployment_id"] for run in runs if run["auto_scheduled"]}

    wait_until(lambda: scheduled() == set(deployments), "the next nights and hours are scheduled")


def test_a_deployment_run_from_a_second_terminal_completes(up):
    done = up.deploy_run("--watch", *run_parameters())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Completed" in done.stdout
    assert json.loads(Path("results/a_OUTPUT.json").read_text())["top"][0] == ["two", 2]


def test_a_bad_parameter_is_refused_before_a_run_exists(up):
    before = up.ask("/flow_runs/count")
    done = up.deploy_run("-p", "num_words=0")
    assert done.returncode == 1
    assert "Validation failed for field 'num_words'" in " ".join((done.stdout + done.stderr).split())
    assert up.ask("/flow_runs/count") == before


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("inputs", []),
        ("inputs", [""]),
        ("num_words", "three"),
        ("output_folder", ""),
        ("nodes", 0),
        ("slots_per_node", 257),
        ("vm_size", ""),
        ("pool_id", "no id!"),
        ("timeout_minutes", 0.5),
        ("ignore_case", "perhaps"),
    ],
)
def test_the_server_refuses_each_bad_parameter_by_name(up, parameter, value):
    with pytest.raises(urllib.error.HTTPError) as refusal:
        up.create_run(**{parameter: value})
    assert refusal.value.code == 409
    assert f"Validation failed for field '{parameter}" in refusal.value.read().decode()


def test_topn_run_finds_the_servers_by_itself(up):
    done = up.second_terminal("flows.cli", "run", "--json", text_file())
    assert done.returncode == 0, done.stderr
    assert "starting" not in done.stderr
    flow_run_id = json.loads(done.stdout)["run"].split("-")[1]
    assert flow_run_id in {run["id"].replace("-", "") for run in up.ask("/flow_runs/filter")}


def test_topn_sweep_finds_them_too(up):
    done = up.second_terminal("flows.cli", "sweep")
    assert (done.returncode, done.stdout) == (0, "")


def test_a_second_one_in_the_same_folder_is_refused(up):
    second = subprocess.run(
        [sys.executable, "-m", "flows.up"],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TOPN_STATE": str(up.state_folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert second.returncode == 2
    assert "`make up` runs in" in second.stderr
    assert len(second.stderr.splitlines()) == 1


@pytest.mark.parametrize("state", ["PENDING", pytest.param("RUNNING", marks=pytest.mark.faults)])
def test_a_ctrl_c_cancels_the_runs_leaves_no_process_and_keeps_the_history(own_up, state):
    own_up.start()
    flow_run_id = own_up.create_run(inputs=[text_file()])
    wait_until(lambda: own_up.state(flow_run_id) == state, "the run is there", seconds=120)
    assert own_up.end() == 0
    assert "Cancelling 1 run" in own_up.output
    assert own_up.processes() == []
    assert addresses_of_up(own_up.state_folder, lambda: None) == {}

    own_up.start()
    assert own_up.state(flow_run_id) == "CANCELLED"
    assert own_up.end(signal.SIGTERM) == 0
    assert own_up.processes() == []


SERVICES = {
    "The local Azure": "localbatch serve",
    "The Prefect worker": "prefect worker start",
    "The Prefect server": "uvicorn",
}


@pytest.mark.parametrize(
    "name", [name if name == "The local Azure" else pytest.param(name, marks=pytest.mark.faults) for name in SERVICES]
)
def test_a_server_that_dies_is_named_and_ends_the_others(own_up, name):
    own_up.start()
    [process] = [pid for pid, command in own_up.processes() if SERVICES[name] in command.replace(b"\0", b" ").decode()]
    os.kill(int(process), signal.SIGKILL)
    assert own_up.wait() == 1
    assert f"{name} ended by signal 9" in own_up.output
    wait_until(lambda: own_up.processes() == [], "no process is left")


@pytest.mark.faults
def test_one_that_is_killed_leaves_no_process_and_its_runs_crashed_the_next_time(own_up):
    own_up.start()
    flow_run_id = own_up.create_run(inputs=[text_file()])
    wait_until(lambda: own_up.state(flow_run_id) == "RUNNING", "the run has begun", seconds=120)
    own_up.process.kill()
    own_up.process.wait()
    wait_until(lambda: own_up.processes() == [], "no process is left")
    assert addresses_of_up(own_up.state_folder, lambda: None) == {}

    own_up.start()
    assert own_up.state(flow_run_id) == "CRASHED"
    # The one run that may be under way at a time is not the dead one.
    again = own_up.create_run(inputs=[text_file()], output_folder=os.path.abspath("results"))
    wait_until(lambda: own_up.state(again) in {"COMPLETED", "FAILED", "CANCELLED"}, "the next run ended", seconds=120)
    assert own_up.state(again) == "COMPLETED"


def test_it_is_refused_where_there_are_no_deployments(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "flows.up"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "There is no prefect.yaml here" in done.stderr
    assert not (tmp_path / ".topn").exists()


def test_a_folder_is_taken_by_one_at_a_time_and_its_addresses_end_with_it(tmp_path):
    assert addresses_of_up(tmp_path, pytest.fail) == {}
    with addresses_left(tmp_path) as write:
        write({"PREFECT_API_URL": "http://127.0.0.1:1/api"})
        assert addresses_of_up(tmp_path, pytest.fail) == {"PREFECT_API_URL": "http://127.0.0.1:1/api"}
        assert (tmp_path / "up.json").stat().st_mode & 0o077 == 0
        with pytest.raises(ConfigurationError, match="already"), addresses_left(tmp_path):
            pass
    (tmp_path / "up.json").write_text('{"PREFECT_API_URL": "http://127.0.0.1:1/api"}')
    assert addresses_of_up(tmp_path, pytest.fail) == {}
