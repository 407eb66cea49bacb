"""Injected faults, seen through the official SDK."""

import dataclasses
import json
import threading
import urllib.error
import urllib.request
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from azure.batch import BatchClient, models
from azure.core.credentials import AzureNamedKeyCredential
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError, ServiceResponseError

from localbatch import LocalBatch
from localbatch.__main__ import main
from localbatch.api.auth import password_header
from localbatch.faults.definitions import FAULTS, FaultError
from localbatch.faults.script import Faults
from localbatch.rules.agenda import PACES
from localbatch.testing import MACHINE, wait_until


@pytest.fixture
def faults(local_batch):
    return local_batch.faults


@pytest.fixture
def client_factory(local_batch):
    opened = []

    def open_client(**options):
        credential = AzureNamedKeyCredential(local_batch.account, local_batch.key)
        opened.append(BatchClient(local_batch.endpoint, credential, **options))
        return opened[-1]

    yield open_client
    for client in opened:
        client.close()


@pytest.fixture
def client(client_factory):
    return client_factory(retry_total=0)


def create_job(client, job_id="j"):
    client.create_job(models.BatchJobCreateOptions(id=job_id, pool_info=models.BatchPoolInfo(pool_id="p")))


def job_ids(client):
    return [job.id for job in client.list_jobs()]


def records(batch, count, operation=None):
    """Return the records of requests, of which the last is made just after its answer is sent."""

    def look():
        found = [record for record in batch.requests if operation in (None, record.operation)]
        return found if len(found) >= count else None

    return wait_until(look)


def statuses(batch, count, operation):
    return [record.status for record in records(batch, count, operation)]


# Requests.


@pytest.mark.parametrize(
    ("options", "code", "tries"),
    [
        # As the SDK is: a POST is repeated after 500, 503 and 504, and after whatever has Retry-After.
        ({"status": 429}, "TooManyRequests", 1),
        ({"status": 429, "retry_after": 0}, "TooManyRequests", 4),
        ({"status": 408}, "RequestTimeout", 1),
        ({"status": 502}, "BadGateway", 1),
        ({"status": 500}, "InternalError", 4),
        ({"status": 500, "code": "OperationTimedOut"}, "OperationTimedOut", 4),
        ({"status": 503}, "ServerBusy", 4),
    ],
)
def test_sdk_retries_some_statuses(local_batch, client_factory, faults, options, code, tries):
    faults.add("answer", operation="create_job", times=9, **options)
    with pytest.raises(HttpResponseError) as caught:
        create_job(client_factory(retry_backoff_factor=0))
    assert (caught.value.status_code, caught.value.error.code) == (options["status"], code)
    assert statuses(local_batch, tries, "create_job") == [options["status"]] * tries
    assert faults.listing()[0]["left"] == 9 - tries


def test_answer_fault_has_no_effect(client, faults):
    faults.add("answer", operation="create_job", status=500, code="OperationTimedOut")
    with pytest.raises(HttpResponseError, match=r"^\(OperationTimedOut\) Operation could not be completed"):
        create_job(client)
    assert job_ids(client) == []


def test_retry_after_is_honoured(local_batch, client_factory, faults):
    faults.add("answer", operation="create_job", status=429, retry_after=1)
    create_job(client_factory())
    refused, made = records(local_batch, 2)
    assert (refused.status, made.status) == (429, 201)
    assert made.started_at - refused.ended_at >= timedelta(seconds=1)


def test_reads_are_retried_after_transient_errors(local_batch, client_factory, faults):
    client = client_factory(retry_backoff_factor=0)
    for status in (408, 502):
        faults.add("answer", operation="list_jobs", status=status)
    faults.add("drop_before", operation="list_jobs")
    assert job_ids(client) == []
    assert statuses(local_batch, 4, "list_jobs") == [408, 502, 0, 200]


def test_head_error_has_no_body(client, faults):
    faults.add("answer", operation="pool_exists")
    with pytest.raises(HttpResponseError) as caught:
        client.pool_exists("p")
    assert caught.value.status_code == 503


def test_drop_before_has_no_effect(local_batch, client, faults):
    faults.add("drop_before", operation="create_job")
    with pytest.raises(ServiceResponseError):
        create_job(client)
    assert job_ids(client) == []
    assert statuses(local_batch, 1, "create_job") == [0]


def test_drop_after_takes_effect(client, faults):
    create_job(client)
    faults.add("drop_after", operation="create_task")
    with pytest.raises(ServiceResponseError):
        client.create_task("j", models.BatchTaskCreateOptions(id="t", command_line="true"))
    assert client.get_task("j", "t").state == "active"


def test_repeated_creation_finds_the_first(client_factory, faults):
    faults.add("drop_after", operation="create_job")
    client = client_factory()
    with pytest.raises(ServiceResponseError):
        create_job(client)
    with pytest.raises(HttpResponseError) as caught:
        create_job(client)
    assert caught.value.error.code == "JobExists"


def test_delay_affects_one_request_only(local_batch, client, client_factory, faults):
    faults.add("delay", operation="get_job", seconds=0.3)
    slow = threading.Thread(target=look_for_job, args=(client_factory(retry_total=0),))
    slow.start()
    wait_until(lambda: faults.listing()[0]["fired"])
    assert job_ids(client) == []
    slow.join()
    first, second = records(local_batch, 2)
    assert (first.operation, second.operation) == ("list_jobs", "get_job")
    assert second.ended_at - second.started_at >= timedelta(seconds=0.3)


def look_for_job(client):
    with pytest.raises(ResourceNotFoundError):
        client.get_job("j")


def test_operations_and_paths_are_patterns(client, faults):
    faults.add("answer", operation="create_*", path="/pools*")
    faults.add("answer", path="/jobs/k*")
    create_job(client)
    client.get_job("j")
    for call in (
        lambda: client.create_pool(models.BatchPoolCreateOptions(id="p", **MACHINE)),
        lambda: client.get_job("k1"),
    ):
        with pytest.raises(HttpResponseError, match="ServerBusy"):
            call()
    assert [fault["fired"] for fault in faults.listing()] == [1, 1]


# The script.


def hits(faults, calls=50):
    return [bool(faults.faults_of("get_job", "/jobs/j")) for _ in range(calls)]


def script():
    return Faults(["get_job", "create_job"])


def test_seed_repeats_what_chance_did():
    one, two, other = script(), script(), script()
    seed = one.add("answer", probability=0.5)["seed"]
    two.add("answer", probability=0.5, seed=seed)
    other.add("answer", probability=0.5, seed=seed + 1)
    first = hits(one)
    assert 0 < sum(first) < 50
    assert hits(two) == first != hits(other)


def test_share_may_have_end():
    faults = script()
    faults.add("answer", probability=1, times=3)
    assert sum(hits(faults)) == 3
    faults.add("answer", probability=1.0)
    assert sum(hits(faults)) == 50
    faults.clear()
    assert sum(hits(faults)) == 0


def test_delays_precede_another_fault():
    faults = script()
    faults.add("delay", seconds=1, times=2)
    faults.add("drop_after")
    faults.add("answer")
    taken = [[fault.fault for fault in faults.faults_of("get_job", "/")] for _ in range(3)]
    assert taken == [["delay", "drop_after"], ["delay", "answer"], []]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ([1], "A fault must be a JSON object"),
        ({"fault": "earthquake"}, "'earthquake' is not a fault. The faults are answer, "),
        ({"fault": "delay", "seconds": 1, "pool": "p"}, "delay has no option 'pool'"),
        ({"fault": "delay"}, "delay needs seconds"),
        ({"fault": "answer", "status": "503"}, "status must be a number, not '503'"),
        ({"fault": "answer", "status": True}, "status must be a number"),
        ({"fault": "answer", "status": 200}, "200 is not the status of an error"),
        ({"fault": "answer", "times": 0}, "times must be at least 1"),
        ({"fault": "answer", "probability": 2}, "probability must be between 0 and 1"),
        ({"fault": "answer", "operation": "make_job"}, "there is no operation 'make_job'"),
        ({"fault": "answer", "retry_after": -1}, "must not be negative"),
        ({"fault": "preempt_node", "when": "later"}, "when must be now or task_running"),
        ({"fault": "endless_task", "task": 1}, "task must be a text, not 1"),
        ({"fault": "allocation_fails", "nodes": "some"}, "nodes must be all, dedicated, spot, not 'some'"),
        ({"fault": "allocation_fails", "values": "x"}, "values must be a JSON object, not 'x'"),
        ({"fault": "allocation_fails", "values": {"Reason": 1}}, "values must contain texts only"),
        ({"fault": "autoscale_fails", "times": 0}, "times must be at least 1"),
    ],
)
def test_invalid_fault_is_refused_with_reason(fault, said):
    faults = script()
    with pytest.raises(FaultError, match=said.replace("'", ".")):
        faults.add_all([{"fault": "answer"}, *(fault if isinstance(fault, list) else [fault])])
    assert faults.listing() == []


def ask(batch, method, body=None, path="/_internal/faults"):
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Authorization": password_header(batch.account, batch.key)}
    request = urllib.request.Request(f"{batch.endpoint}{path}", data, headers, method=method)
    try:
        with urllib.request.urlopen(request) as answer:
            content = answer.read()
            return answer.status, json.loads(content) if content else None
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_script_is_reached_from_outside(local_batch, client):
    status, added = ask(local_batch, "POST", {"fault": "answer", "operation": "list_jobs", "times": 2})
    assert status == 201
    assert added["faults"][0] | {"left": 2, "fired": 0} == added["faults"][0]
    with pytest.raises(HttpResponseError):
        job_ids(client)
    assert ask(local_batch, "GET") == (200, {"faults": [added["faults"][0] | {"left": 1, "fired": 1}]})
    assert ask(local_batch, "DELETE") == (204, None)
    assert job_ids(client) == []
    assert ask(local_batch, "GET") == (200, {"faults": []})


def test_script_requests_are_not_recorded(local_batch, faults):
    faults.add("answer", probability=1.0)
    assert ask(local_batch, "GET")[0] == 200
    assert not local_batch.requests


@pytest.mark.parametrize(
    ("method", "body", "path", "status", "said"),
    [
        ("POST", {"fault": "x"}, "/_internal/faults", 400, "'x' is not a fault"),
        ("POST", b"{", "/_internal/faults", 400, "Expecting"),
        ("PUT", {}, "/_internal/faults", 405, "allows GET, POST and DELETE"),
        ("GET", None, "/_internal/storage-faults", 404, "Start with --storage-faults"),
    ],
)
def test_invalid_script_request_is_refused(local_batch, method, body, path, status, said):
    answer = ask(local_batch, method, body, path)
    assert answer[0] == status
    assert said in answer[1]["error"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "Expecting"),
        ('{"fault": "answer"}', "must be a list of faults"),
        ('[{"fault": "x"}]', "'x' is not a fault"),
        (None, "No such file"),
    ],
)
def test_invalid_script_file_is_one_sentence(tmp_path, capsys, text, said):
    file = tmp_path / "faults.json"
    if text:
        file.write_text(text)
    assert main(["exec", f"--faults={file}", "--", "true"]) == 2
    written = capsys.readouterr().err
    assert written.count("\n") == 1
    assert said in written


def test_stopping_waits_for_no_delay(tmp_path):
    before = set(threading.enumerate())
    with LocalBatch(state_dir=tmp_path, pace="instant") as batch:
        batch.faults.add("delay", operation="list_jobs", seconds=300)
        credential = AzureNamedKeyCredential(batch.account, batch.key)
        with BatchClient(batch.endpoint, credential, retry_total=0) as client:
            slow = threading.Thread(target=fail, args=(client,))
            slow.start()
            wait_until(lambda: batch.faults.listing()[0]["fired"])
            started_at = datetime.now(timezone.utc)
            batch.stop()
            slow.join()
    assert datetime.now(timezone.utc) - started_at < timedelta(seconds=200)
    assert set(threading.enumerate()) <= before


def fail(client):
    with pytest.raises(ServiceResponseError):
        job_ids(client)


# Nodes and tasks.


@pytest.fixture
def simulated(tmp_path, monkeypatch):
    """An account whose tasks take an hour and whose preempted nodes do not come back by themselves; a client of it."""
    monkeypatch.setitem(PACES, "instant", dataclasses.replace(PACES["instant"], preempted=3600))
    with LocalBatch(state_dir=tmp_path, pace="instant", runner="simulated", task_seconds=3600) as batch:
        credential = AzureNamedKeyCredential(batch.account, batch.key)
        with BatchClient(batch.endpoint, credential, retry_total=0) as client:
            create_job(client)
            yield batch, client


def create_pool(client, pool_id="p", nodes=1, **options):
    targets = {"target_low_priority_nodes": nodes}
    client.create_pool(models.BatchPoolCreateOptions(id=pool_id, **MACHINE, **targets, **options))


def add_tasks(client, *task_ids):
    for task_id in task_ids:
        client.create_task("j", models.BatchTaskCreateOptions(id=task_id, command_line="true"))


def node_states(client, pool_id="p"):
    return sorted(node.state for node in client.list_nodes(pool_id))


def requeues(client, task_id):
    return client.get_task("j", task_id).execution_info.requeue_count


@pytest.mark.parametrize(
    ("fault", "states"),
    [
        ("preempt_node", ["preempted", "running"]),
        ("make_node_unusable", ["running", "unusable"]),
        ("lose_node", ["running", "unknown"]),
    ],
)
def test_node_fault_waits_for_running_task(simulated, fault, states):
    batch, client = simulated
    batch.faults.add(fault, pool="p", when="task_running")
    create_pool(client, nodes=2)
    wait_until(lambda: node_states(client) == ["idle", "idle"])
    add_tasks(client, "t")
    wait_until(lambda: node_states(client) == states)
    wait_until(lambda: client.get_task("j", "t").state == "running")
    assert requeues(client, "t") == 1
    assert [fault["fired"] for fault in batch.faults.listing()] == [1]


def test_node_vanishes_from_its_pool(simulated):
    batch, client = simulated
    create_pool(client)
    add_tasks(client, "t")
    wait_until(lambda: client.get_task("j", "t").state == "running")
    node = client.get_task("j", "t").node_info.node_id
    batch.faults.add("vanish_node", pool="p", node=node)
    with pytest.raises(ResourceNotFoundError):
        wait_until(lambda: not client.get_node("p", node))
    assert client.get_task("j", "t").execution_info.requeue_count == 1


def test_preempted_node_returns_with_its_id(simulated):
    batch, client = simulated
    create_pool(client)
    wait_until(lambda: node_states(client) == ["idle"])
    (node,) = client.list_nodes("p")
    batch.faults.add("preempt_node", pool="P", node=node.id)
    wait_until(lambda: client.get_node("p", node.id).state == "preempted")
    batch.faults.add("recover_node", pool="p")
    wait_until(lambda: client.get_node("p", node.id).state == "idle")


def test_preempted_nodes_are_spot_nodes(simulated):
    batch, client = simulated
    create_pool(client, nodes=2, target_dedicated_nodes=2)
    wait_until(lambda: node_states(client) == ["idle"] * 4)
    batch.faults.add("preempt_node", times=3)
    wait_until(lambda: node_states(client) == ["idle", "idle", "preempted", "preempted"])
    assert {node.state for node in client.list_nodes("p") if node.is_dedicated} == {"idle"}


def test_node_is_preempted_repeatedly(simulated):
    """Each preemption restarts the Batch task."""
    batch, client = simulated
    create_pool(client)
    add_tasks(client, "t")
    batch.faults.add("preempt_node", when="task_running", times=2)
    for requeue_count in (1, 2):
        wait_until(lambda requeue_count=requeue_count: requeues(client, "t") == requeue_count)
        assert node_states(client) == ["preempted"]
        batch.faults.add("recover_node")
    wait_until(lambda: client.get_task("j", "t").state == "running" and node_states(client) == ["running"])
    assert (requeues(client, "t"), client.get_task("j", "t").execution_info.retry_count) == (2, 0)


def test_unusable_node_says_why(simulated):
    batch, client = simulated
    batch.faults.add("make_node_unusable", code="DiskFull", message="There is no space left")
    create_pool(client)
    wait_until(lambda: node_states(client) == ["unusable"])
    (node,) = client.list_nodes("p")
    assert [(error.code, error.message) for error in node.errors] == [("DiskFull", "There is no space left")]


def test_node_fault_affects_one_pool(simulated):
    batch, client = simulated
    batch.faults.add("preempt_node", pool="q", times=2)
    create_pool(client, "p", nodes=2)
    create_pool(client, "q", nodes=3)
    wait_until(lambda: node_states(client, "q") == ["idle", "preempted", "preempted"])
    wait_until(lambda: node_states(client, "p") == ["idle", "idle"])


def test_node_fault_waits_for_its_node(simulated):
    batch, client = simulated
    batch.faults.add("preempt_node", pool="p", when="task_running")
    create_pool(client)
    wait_until(lambda: node_states(client) == ["idle"])
    batch.faults.clear()
    add_tasks(client, "t")
    wait_until(lambda: client.get_task("j", "t").state == "running")
    assert requeues(client, "t") in (None, 0)


def test_start_task_fails(simulated):
    batch, client = simulated
    batch.faults.add("start_task_fails", pool="p", exit_code=3)
    create_pool(client, start_task=models.BatchStartTask(command_line="true", wait_for_success=True))
    wait_until(lambda: node_states(client) == ["starttaskfailed"])
    (node,) = client.list_nodes("p")
    assert node.start_task_info.exit_code == 3


@pytest.mark.parametrize("code", ["AccountCoreQuotaReached", "AllocationFailed", "AllocationTimedout"])
def test_allocation_fails_with_code(simulated, code):
    batch, client = simulated
    batch.faults.add("allocation_fails", pool="p", code=code)
    create_pool(client)
    pool = wait_until(lambda: steady(client))
    assert code in [error.code for error in pool.resize_errors]
    assert node_states(client) == []


def test_allocation_error_has_values(simulated):
    batch, client = simulated
    batch.faults.add("allocation_fails", values={"Reason": "No subnet.", "Provider Error Json Truncated": "False"})
    create_pool(client)
    (error,) = wait_until(lambda: steady(client)).resize_errors
    assert error.message == "Desired number of low priority nodes could not be allocated"
    assert {pair.name: pair.value for pair in error.error_values} == {
        "Reason": "No subnet.",
        "Provider Error Json Truncated": "False",
    }


def test_spot_shortage_spares_dedicated_nodes(simulated):
    batch, client = simulated
    batch.faults.add("allocation_fails", nodes="spot")
    batch.faults.add("allocation_fails", pool="q", nodes="dedicated")
    create_pool(client, target_dedicated_nodes=2)
    create_pool(client, "q", target_dedicated_nodes=2)
    (error,) = wait_until(lambda: steady(client)).resize_errors
    assert (error.code, error.message) == (
        "AllocationFailed",
        "Desired number of low priority nodes could not be allocated",
    )
    wait_until(lambda: [node.is_dedicated for node in client.list_nodes("p")] == [True, True])
    messages = [error.message for error in wait_until(lambda: steady(client, "q")).resize_errors]
    assert sorted(messages) == [
        f"Desired number of {kind} nodes could not be allocated" for kind in ("dedicated", "low priority")
    ]


def test_formula_retries_spot_nodes(simulated):
    batch, client = simulated
    batch.faults.add("allocation_fails", nodes="spot")
    scale(client, "$TargetLowPriorityNodes = 1; $TargetDedicatedNodes = 1;")
    wait_until(lambda: steady(client) and node_states(client) == ["idle"])
    batch.advance(timedelta(minutes=5))
    wait_until(lambda: steady(client).resize_errors)
    batch.faults.clear()
    batch.advance(timedelta(minutes=5))
    wait_until(lambda: node_states(client) == ["idle", "idle"])
    assert not steady(client).resize_errors


def test_dedicated_nodes_come_while_spot_nodes_stall(simulated):
    batch, client = simulated
    batch.faults.add("allocation_fails", nodes="spot", stalls=True)
    create_pool(client, target_dedicated_nodes=1)
    wait_until(lambda: node_states(client) == ["idle"])
    assert steady(client) is None
    batch.advance(timedelta(minutes=15))
    (error,) = wait_until(lambda: steady(client)).resize_errors
    assert (error.code, node_states(client)) == ("AllocationTimedout", ["idle"])


def scale(client, formula):
    options = {"enable_auto_scale": True, "auto_scale_formula": formula}
    interval = timedelta(minutes=5)
    client.create_pool(
        models.BatchPoolCreateOptions(id="p", **MACHINE, auto_scale_evaluation_interval=interval, **options)
    )


def autoscale_error(client):
    run = client.get_pool("p").auto_scale_run
    return run and run.error


def test_autoscale_fails_some_times(simulated):
    batch, client = simulated
    batch.faults.add("autoscale_fails", pool="p", times=2)
    scale(client, "$TargetDedicatedNodes = 1;")
    error = wait_until(lambda: autoscale_error(client))
    assert (error.code, error.message) == (
        "InsufficientSampleData",
        "Autoscale evaluation failed due to insufficient sample data",
    )
    assert [(pair.name, pair.value) for pair in error.error_values] == [("Message", error.message)]
    # A change of the script keeps the count.
    batch.faults.add("autoscale_fails", pool="q", code="Other", message="No.", values={"Message": "Line 1"})
    assert [(fault["fired"], fault["left"]) for fault in batch.faults.listing()] == [(1, 1), (0, 1)]
    batch.advance(timedelta(minutes=5))
    wait_until(lambda: batch.faults.listing()[0]["left"] == 0)
    assert (client.get_pool("p").target_dedicated_nodes, node_states(client)) == (0, [])
    batch.advance(timedelta(minutes=5))
    wait_until(lambda: node_states(client) == ["idle"])
    assert not autoscale_error(client)


def test_enabling_autoscale_again_evaluates_at_once(simulated):
    batch, client = simulated
    batch.faults.add("autoscale_fails", code="Other", message="No.")
    scale(client, "$TargetDedicatedNodes = 1;")
    assert wait_until(lambda: autoscale_error(client)).message == "No."
    wait_until(lambda: steady(client))
    formula = client.get_pool("p").auto_scale_formula
    client.enable_pool_auto_scale("p", models.BatchPoolEnableAutoScaleOptions(auto_scale_formula=formula))
    wait_until(lambda: node_states(client) == ["idle"])


def steady(client, pool_id="p"):
    pool = client.get_pool(pool_id)
    return pool if pool.allocation_state == "steady" else None


def test_stalled_allocation_ends_at_timeout(simulated):
    batch, client = simulated
    batch.faults.add("allocation_fails", stalls=True)
    create_pool(client)
    batch.advance(timedelta(minutes=14))
    assert steady(client) is None
    batch.advance(timedelta(minutes=1))
    assert "AllocationTimedout" in [error.code for error in wait_until(lambda: steady(client)).resize_errors]


def test_stalled_allocation_continues_after_clear(simulated):
    batch, client = simulated
    batch.faults.add("allocation_fails", stalls=True)
    create_pool(client)
    assert steady(client) is None
    batch.faults.clear()
    wait_until(lambda: node_states(client) == ["idle"])


def test_task_never_ends(simulated):
    batch, client = simulated
    batch.faults.add("endless_task", task="t")
    create_pool(client, task_slots_per_node=2)
    add_tasks(client, "t", "other")
    wait_until(lambda: client.get_job_task_counts("j").task_counts.running == 2)
    batch.advance(timedelta(hours=2))
    wait_until(lambda: client.get_task("j", "other").state == "completed")
    assert client.get_task("j", "t").state == "running"
    client.terminate_task("j", "t")
    assert client.get_task("j", "t").state == "completed"


def test_upload_fails(local_batch, client, faults):
    faults.add("upload_fails", task="t", code="FileUploadTimedOut")
    create_job(client)
    create_pool(client)
    nowhere = models.OutputFileBlobContainerDestination(container_url="http://127.0.0.1:9/account/container?sig=x")
    output = models.OutputFile(
        file_pattern="*.txt",
        destination=models.OutputFileDestination(container=nowhere),
        upload_options=models.OutputFileUploadConfiguration(upload_condition="taskcompletion"),
    )
    client.create_task("j", models.BatchTaskCreateOptions(id="t", command_line="true", output_files=[output]))
    wait_until(lambda: client.get_task("j", "t").state == "completed")
    info = client.get_task("j", "t").execution_info
    assert (info.exit_code, info.result, info.failure_info.code) == (0, "failure", "FileUploadTimedOut")


def test_every_fault_is_shown_here():
    source = Path(__file__).read_text()
    assert [name for name in FAULTS if f'add("{name}"' not in source and f'("{name}",' not in source] == []
