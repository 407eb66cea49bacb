"""`localbatch serve` as a process: what it prints, and that it leaves nothing behind and hides its files."""

from __future__ import annotations

import http.client
import signal
import stat
import subprocess
import urllib.request

import pytest
from azure.storage.blob import BlobServiceClient
from server_support import LOCALBATCH, processes, start_task

from localbatch import DEVELOPMENT_KEY
from localbatch.api.auth import password_header
from localbatch.processes.azurite import STORAGE_ACCOUNT, STORAGE_KEY
from localbatch.testing import wait_until


@pytest.fixture
def serve(tmp_path):
    """Start `localbatch serve` in a folder that others can read, and return the process and its output until it is ready."""
    state = tmp_path / "state"
    state.mkdir(mode=0o755)
    started = []

    def start(*options):
        command = [*LOCALBATCH, "serve", "--port=0", "--storage-port=0", "--pace=instant", f"--state={state}", *options]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path, umask=0o022
        )
        started.append(process)
        lines = []
        for line in process.stdout:
            lines.append(line.rstrip())
            if line == "ready\n":
                break
        return process, lines

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def exports(lines):
    return dict(line.removeprefix("export ").split("=", 1) for line in lines if line.startswith("export "))


def batch_account(variables):
    return [variables[f"TOPN_BATCH_{name}"] for name in ("ENDPOINT", "ACCOUNT", "KEY")]


def test_killed_server_leaves_nothing(serve, tmp_path, escaping):
    process, lines = serve()
    variables = exports(lines)
    start_task(*batch_account(variables), escaping)
    # The server, its launcher, Azurite, and those that sleep.
    wait_until(lambda: len(processes(tmp_path)) >= 7)
    process.kill()
    wait_until(lambda: not processes(tmp_path))
    assert not list(tmp_path.glob("state/azure/nodes*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_server_leaves_nothing(serve, tmp_path, escaping, number):
    process, lines = serve()
    variables = exports(lines)
    start_task(*batch_account(variables), escaping)
    process.send_signal(number)
    assert process.wait(60) == 0
    assert processes(tmp_path) == []
    assert not list(tmp_path.glob("state/azure/nodes*"))


def test_serve_stops_with_its_standard_input(serve):
    process, lines = serve("--stop-on-eof")
    variables = exports(lines)
    assert lines[:2] == [variables["TOPN_BATCH_ENDPOINT"], variables["TOPN_STORAGE_ENDPOINT"]]
    assert lines[-1] == "ready"
    assert variables["TOPN_STORAGE_ENDPOINT"].endswith("/devstoreaccount1")
    settings = {f"TOPN_{a}_{b}" for a in ("BATCH", "STORAGE") for b in ("ENDPOINT", "ACCOUNT", "KEY")}
    assert {name for name in variables if name.startswith("TOPN_")} == settings

    process.stdin.close()
    assert process.wait(60) == 0


def test_serve_accepts_simulation_options(serve):
    options = ("--node-start-seconds=0", "--sample-delay=0", "--family-core-quota=x=1", "--storage-faults")
    _, lines = serve("--runner=simulated", "--task-seconds=60", *options)
    variables = exports(lines)
    start_task(*batch_account(variables), "no-such-program")
    script = f"{variables['TOPN_BATCH_ENDPOINT']}/_internal/storage-faults"
    headers = {"Authorization": password_header(variables["TOPN_BATCH_ACCOUNT"], variables["TOPN_BATCH_KEY"])}
    body = b'{"fault": "drop_before", "operation": "list_containers"}'
    with urllib.request.urlopen(urllib.request.Request(script, body, headers)) as answer:
        assert answer.status == 201
    with pytest.raises(http.client.RemoteDisconnected):
        urllib.request.urlopen(f"{variables['TOPN_STORAGE_ENDPOINT']}/?comp=list")


def test_servers_have_separate_ports_and_data(serve, tmp_path, escaping):
    process, lines = serve()
    first = exports(lines)
    start_task(*batch_account(first), escaping)
    second = exports(serve()[1])
    assert first["TOPN_STORAGE_ENDPOINT"] != second["TOPN_STORAGE_ENDPOINT"]
    assert first["TOPN_BATCH_ENDPOINT"] != second["TOPN_BATCH_ENDPOINT"]
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["azure", "azure-2"]

    process.kill()
    third = exports(serve()[1])
    start_task(*batch_account(third), escaping)
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["azure", "azure-2"]


def open_to_others(folder):
    """List a folder and what is below it, if its mode gives others any access."""
    return [str(path) for path in (folder, *folder.rglob("*")) if stat.S_IMODE(path.lstat().st_mode) & 0o077]


def test_serve_hides_all_files_from_others(serve, tmp_path):
    start_task(*batch_account(exports(serve()[1])), "touch made", state="completed")
    assert list((tmp_path / "state").rglob("made"))
    assert open_to_others(tmp_path / "state") == []


def test_serve_prints_connection_string(serve):
    connection_string = exports(serve()[1])["AZURE_STORAGE_CONNECTION_STRING"].strip("'")
    with BlobServiceClient.from_connection_string(connection_string) as client:
        assert client.account_name == STORAGE_ACCOUNT
        client.create_container("made")
        assert [each.name for each in client.list_containers()] == ["made"]


def test_serve_uses_well_known_keys_on_request(serve):
    variables = exports(serve("--development-key")[1])
    assert (variables["TOPN_BATCH_KEY"], variables["TOPN_STORAGE_KEY"]) == (DEVELOPMENT_KEY, STORAGE_KEY)
