"""Servers as processes and threads: how they start, and that they leave nothing behind."""

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from azure.batch import BatchClient, models
from azure.core.credentials import AzureNamedKeyCredential

from localbatch import LocalAzure, LocalBatch
from localbatch.__main__ import main
from localbatch.api.auth import password_header
from localbatch.local_azure import claim_directory
from localbatch.processes.installation import azurite_folder
from localbatch.testing import MACHINE, wait_until

LOCALBATCH = [sys.executable, "-m", "localbatch"]


def open_client(endpoint, account, key):
    return BatchClient(endpoint, AzureNamedKeyCredential(account, key), retry_total=0)


def start_task(endpoint, account, key, command_line):
    """Start one Batch task, and return the directory of its node when it runs."""
    with open_client(endpoint, account, key) as client:
        client.create_pool(models.BatchPoolCreateOptions(id="p", **MACHINE, target_dedicated_nodes=1))
        client.create_job(models.BatchJobCreateOptions(id="j", pool_info=models.BatchPoolInfo(pool_id="p")))
        client.create_task("j", models.BatchTaskCreateOptions(id="t", command_line=command_line))
        wait_until(lambda: client.get_task("j", "t").state == "running")


def processes(marker):
    """Return the processes that have a text in their command line or their environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(marker).encode() in (entry / name).read_bytes() for name in ("cmdline", "environ")):
                found.append(int(entry.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]


def command_lines(marker):
    """Return the command lines of those processes."""
    lines = []
    for pid in processes(marker):
        with contextlib.suppress(OSError):
            lines.append(Path(f"/proc/{pid}/cmdline").read_text())
    return lines


@pytest.fixture
def escaping(tmp_path):
    """Return a command line of which one process has neither its parent, its group nor its environment any more."""
    sleeper = shutil.copy(shutil.which("sleep"), tmp_path / "sleeper")
    return f"/bin/sh -c '(env -i $(command -v setsid) {sleeper} 300 &); setsid sleep 300 & sleep 300 & sleep 300'"


@pytest.fixture
def serve(tmp_path):
    """Start `localbatch serve`, and return the process and what it printed until it was ready."""
    started = []

    def start(*options, state=tmp_path / "state"):
        command = [*LOCALBATCH, "serve", "--port=0", "--storage-port=0", "--pace=instant", f"--state={state}", *options]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
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
    return dict(line.removeprefix("export ").split("=", 1) for line in lines if line.startswith("export TOPN_"))


def test_killed_server_leaves_nothing(serve, tmp_path, escaping):
    process, lines = serve()
    variables = exports(lines)
    start_task(*(variables[f"TOPN_BATCH_{name}"] for name in ("ENDPOINT", "ACCOUNT", "KEY")), escaping)
    # The server, its launcher, Azurite, and those that sleep.
    wait_until(lambda: len(processes(tmp_path)) >= 7)
    process.kill()
    wait_until(lambda: not processes(tmp_path))
    assert not list(tmp_path.glob("state/azure/nodes*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_server_leaves_nothing(serve, tmp_path, escaping, number):
    process, lines = serve()
    variables = exports(lines)
    start_task(*(variables[f"TOPN_BATCH_{name}"] for name in ("ENDPOINT", "ACCOUNT", "KEY")), escaping)
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
    assert set(variables) == {f"TOPN_{a}_{b}" for a in ("BATCH", "STORAGE") for b in ("ENDPOINT", "ACCOUNT", "KEY")}

    process.stdin.close()
    assert process.wait(60) == 0


def test_serve_accepts_simulation_options(serve):
    options = ("--node-start-seconds=0", "--sample-delay=0", "--family-core-quota=x=1", "--storage-faults")
    _, lines = serve("--runner=simulated", "--task-seconds=60", *options)
    variables = exports(lines)
    start_task(*(variables[f"TOPN_BATCH_{name}"] for name in ("ENDPOINT", "ACCOUNT", "KEY")), "no-such-program")
    script = f"{variables['TOPN_BATCH_ENDPOINT']}/_internal/storage-faults"
    headers = {"Authorization": password_header(variables["TOPN_BATCH_ACCOUNT"], variables["TOPN_BATCH_KEY"])}
    body = b'{"fault": "drop_before", "operation": "list_containers"}'
    with urllib.request.urlopen(urllib.request.Request(script, body, headers)) as answer:
        assert answer.status == 201
    with pytest.raises(http.client.RemoteDisconnected):
        urllib.request.urlopen(f"{variables['TOPN_STORAGE_ENDPOINT']}/?comp=list")


def test_taken_port_is_replaced():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with LocalBatch(port=port) as batch:
            assert batch.endpoint != f"http://127.0.0.1:{port}"
            with LocalBatch(port=0) as another:
                assert another.endpoint != batch.endpoint


def test_wanted_port_is_used():
    with LocalBatch() as batch:
        endpoint = batch.endpoint
    with LocalBatch(port=int(endpoint.rpartition(":")[2])) as batch:
        assert batch.endpoint == endpoint


def test_stop_frees_all_resources(tmp_path, escaping):
    before = set(threading.enumerate())
    with LocalBatch(state_dir=tmp_path / "state", pace="instant") as batch:
        start_task(batch.endpoint, batch.account, batch.key, escaping)
        wait_until(lambda: len(processes(tmp_path)) >= 5)
        address = ("127.0.0.1", int(batch.endpoint.rpartition(":")[2]))
    assert set(threading.enumerate()) <= before
    assert processes(tmp_path) == []
    assert list((tmp_path / "state").iterdir()) == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


@pytest.mark.parametrize("end", ["terminate", "delete"])
def test_no_process_outlives_its_batch_task(local_batch, tmp_path, escaping, end):
    start_task(local_batch.endpoint, local_batch.account, local_batch.key, escaping)
    wait_until(lambda: any("sleeper" in line for line in command_lines(tmp_path)))
    with open_client(local_batch.endpoint, local_batch.account, local_batch.key) as client:
        getattr(client, f"{end}_task")("j", "t")
    wait_until(lambda: not any("sleep" in line for line in command_lines(tmp_path)))


def test_failed_azurite_reports_its_output(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCALBATCH_DATA", str(tmp_path / "data"))
    script = azurite_folder() / "node_modules/azurite/dist/src/blob/main.js"
    script.parent.mkdir(parents=True)
    script.write_text("console.log('no disk today'); process.exit(1);")
    with pytest.raises(Exception, match="no disk today"):
        LocalAzure(state_dir=tmp_path / "state").start()
    assert processes(tmp_path / "state") == []


@pytest.mark.parametrize("command", [["serve"], ["exec", "--", "true"]])
def test_missing_azurite_is_one_sentence(monkeypatch, tmp_path, command):
    monkeypatch.setenv("LOCALBATCH_DATA", str(tmp_path))
    result = subprocess.run([*LOCALBATCH, *command], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert "Azurite is not installed; run `localbatch install`." in result.stderr


def test_install_without_home_uses_folder_of_python(monkeypatch, tmp_path):
    monkeypatch.delenv("LOCALBATCH_DATA", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("HOME", __file__)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert azurite_folder().parent == tmp_path / "share" / "localbatch"
    # A user with a home folder finds it, too.
    azurite_folder().mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert azurite_folder().parent == tmp_path / "share" / "localbatch"


def test_install_keeps_installed_version(monkeypatch, tmp_path):
    monkeypatch.setenv("LOCALBATCH_DATA", str(tmp_path))
    azurite_folder().mkdir()
    result = subprocess.run([*LOCALBATCH, "install"], capture_output=True, text=True, check=True)
    assert result.stdout == f"Azurite is in {azurite_folder()}\n"
    assert list(azurite_folder().iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["serve", "--port", "x"],
        ["serve", "--pace=slow"],
        ["serve", "--runner=magic"],
        ["serve", "--task-seconds=-1"],
        ["serve", "--core-quota=many"],
        ["serve", "--family-core-quota=standardDSv3Family"],
        ["serve", "--family-core-quota=standardDSv3Family=many"],
        ["serve", "--sample-delay=-1"],
        ["exec"],
        ["nonsense"],
    ],
)
def test_bad_usage_is_one_sentence(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(("script", "status"), [('test "$TOPN_BATCH_KEY" && exit 7', 7), ("kill -9 $$", 137)])
def test_exec_ends_as_its_command_does(script, status):
    assert subprocess.run([*LOCALBATCH, "exec", "--", "sh", "-c", script], check=False).returncode == status


def test_exec_forwards_signals(tmp_path):
    command = [*LOCALBATCH, "exec", "--", "sh", "-c", "echo $TOPN_BATCH_ENDPOINT; exec sleep 300"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        endpoint = process.stdout.readline().strip()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(endpoint.rpartition(":")[2])))


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_exec_keeps_ignored_signals_ignored(number):
    """As with `nohup`: the terminal sends the signal to the command, too."""
    command = [*LOCALBATCH, "exec", "--", "sh", "-c", "echo started; read answer; exit $answer"]
    ignoring = ["sh", "-c", f"trap '' {number.name.removeprefix('SIG')}; exec \"$@\"", "sh", *command]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen(ignoring, **pipes) as process:
        process.stdout.readline()
        os.killpg(process.pid, number)
        process.communicate("7\n", timeout=60)
    assert process.returncode == 7


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_of_exec_outlives_it(tmp_path, escaping, number):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    command = [*LOCALBATCH, "exec", "--", "sh", "-c", f"echo started; {escaping.partition(' -c ')[2][1:-1]}"]
    environment = os.environ | {"TMPDIR": str(temporary)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        process.stdout.readline()
        wait_until(lambda: sum("sleep" in line for line in command_lines(tmp_path)) >= 4)
        process.send_signal(number)
        process.wait(60)
    wait_until(lambda: not processes(tmp_path) and not list(temporary.iterdir()))


def test_used_folder_is_not_shared(tmp_path):
    first, lock = claim_directory(tmp_path / "azure")
    second, other = claim_directory(tmp_path / "azure")
    lock.close()
    again, third = claim_directory(tmp_path / "azure")
    other.close()
    third.close()
    assert [path.name for path in (first, second, again)] == ["azure", "azure-2", "azure"]


def test_servers_have_separate_ports_and_data(serve, tmp_path, escaping):
    process, lines = serve()
    first = exports(lines)
    start_task(*(first[f"TOPN_BATCH_{name}"] for name in ("ENDPOINT", "ACCOUNT", "KEY")), escaping)
    second = exports(serve()[1])
    assert first["TOPN_STORAGE_ENDPOINT"] != second["TOPN_STORAGE_ENDPOINT"]
    assert first["TOPN_BATCH_ENDPOINT"] != second["TOPN_BATCH_ENDPOINT"]
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["azure", "azure-2"]

    process.kill()
    third = exports(serve()[1])
    start_task(*(third[f"TOPN_BATCH_{name}"] for name in ("ENDPOINT", "ACCOUNT", "KEY")), escaping)
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["azure", "azure-2"]


def test_fresh_account_is_empty(local_batch):
    with open_client(local_batch.endpoint, local_batch.account, local_batch.key) as client:
        assert list(client.list_pools()) == list(client.list_jobs()) == []


def test_advance_ends_a_job_at_its_limit(local_batch):
    with open_client(local_batch.endpoint, local_batch.account, local_batch.key) as client:
        limit = models.BatchJobConstraints(max_wall_clock_time=timedelta(hours=48))
        info = models.BatchPoolInfo(pool_id="p")
        client.create_job(models.BatchJobCreateOptions(id="j", pool_info=info, constraints=limit))
        local_batch.advance(timedelta(hours=47))
        assert client.get_job("j").state == "active"
        local_batch.advance(timedelta(hours=1))
        wait_until(lambda: client.get_job("j").state == "completed")
        job = client.get_job("j")
        assert job.execution_info.termination_reason == "MaxWallClockTimeExpiry"
        assert job.execution_info.end_time - job.creation_time >= timedelta(hours=48)


def test_advance_reaches_a_formula_deadline(local_batch):
    deadline = datetime.now(timezone.utc) + timedelta(hours=3)
    formula = f'$TargetDedicatedNodes = time() < time("{deadline:%a, %d %b %Y %H:%M:%S} GMT") ? 2 : 0;'
    with open_client(local_batch.endpoint, local_batch.account, local_batch.key) as client:
        pool = models.BatchPoolCreateOptions(id="p", **MACHINE, enable_auto_scale=True, auto_scale_formula=formula)
        client.create_pool(pool)
        wait_until(lambda: len(list(client.list_nodes("p"))) == 2)
        local_batch.advance(timedelta(hours=2))
        wait_until(lambda: client.get_pool("p").auto_scale_run.timestamp > deadline - timedelta(hours=2))
        assert len(list(client.list_nodes("p"))) == 2
        local_batch.advance(timedelta(hours=1, minutes=15))
        wait_until(lambda: list(client.list_nodes("p")) == [])


def test_clock_does_not_go_back(local_batch):
    with pytest.raises(ValueError, match="cannot go back"):
        local_batch.advance(timedelta(seconds=-1))


def test_node_start_seconds_overrides_the_pace(tmp_path):
    with (
        LocalBatch(state_dir=tmp_path, pace="instant", node_start_seconds=45) as batch,
        open_client(batch.endpoint, batch.account, batch.key) as client,
    ):
        client.create_pool(models.BatchPoolCreateOptions(id="p", **MACHINE, target_dedicated_nodes=1))
        for seconds, state in ((0, "creating"), (10, "starting"), (34, "starting"), (1, "idle")):
            batch.advance(timedelta(seconds=seconds))
            wait_until(lambda state=state: [node.state for node in client.list_nodes("p")] == [state])


def test_sample_delay_overrides_the_pace(tmp_path):
    with (
        LocalBatch(state_dir=tmp_path, pace="instant", sample_delay_seconds=60) as batch,
        open_client(batch.endpoint, batch.account, batch.key) as client,
    ):
        formula = "$TargetDedicatedNodes = max(0, $PendingTasks.GetSample(1));"
        pool = models.BatchPoolCreateOptions(id="p", **MACHINE, enable_auto_scale=True, auto_scale_formula=formula)
        client.create_pool(pool)

        def error():
            options = models.BatchPoolEvaluateAutoScaleOptions(auto_scale_formula=formula)
            return client.evaluate_pool_auto_scale("p", options).error

        assert error().code == "InsufficientSampleData"
        batch.advance(timedelta(seconds=60))
        assert error() is None


def test_family_quotas_apply(tmp_path):
    quotas = {"StandardDSv3Family": 2}
    with (
        LocalBatch(state_dir=tmp_path, pace="instant", family_core_quotas=quotas) as batch,
        open_client(batch.endpoint, batch.account, batch.key) as client,
    ):
        client.create_pool(
            models.BatchPoolCreateOptions(**MACHINE | {"vm_size": "Standard_D2s_v3"}, id="p", target_dedicated_nodes=2)
        )
        wait_until(lambda: client.get_pool("p").allocation_state == "steady")
        pool = client.get_pool("p")
        codes = [error.code for error in pool.resize_errors]
        assert (pool.current_dedicated_nodes, codes) == (1, ["AccountVMSeriesCoreQuotaReached"])
