"""Servers in this process: how they start, and that they leave nothing behind."""

import socket
import sys
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from azure.batch import models
from server_support import command_lines, open_client, processes, start_task

from localbatch import LocalAzure, LocalBatch
from localbatch.__main__ import main
from localbatch.local_azure import claim_directory
from localbatch.processes.installation import AzuriteError, azurite_folder
from localbatch.testing import MACHINE, wait_until


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


def test_byte_code_of_azurite_is_kept_beside_it(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCALBATCH_DATA", str(tmp_path / "data"))
    script = azurite_folder() / "node_modules/azurite/dist/src/blob/main.js"
    script.parent.mkdir(parents=True)
    script.write_text("require('fs').writeFileSync('in-use', require('module').getCompileCacheDir()); process.exit(1);")
    with pytest.raises(AzuriteError):
        LocalAzure(state_dir=tmp_path / "state").start()
    [in_use] = (tmp_path / "state").rglob("in-use")
    assert Path(in_use.read_text()).parent == azurite_folder() / "byte-code"


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


def test_used_folder_is_not_shared(tmp_path):
    first, lock = claim_directory(tmp_path / "azure")
    second, other = claim_directory(tmp_path / "azure")
    lock.close()
    again, third = claim_directory(tmp_path / "azure")
    other.close()
    third.close()
    assert [path.name for path in (first, second, again)] == ["azure", "azure-2", "azure"]


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
