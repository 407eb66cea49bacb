"""Fixtures for the official SDK and a shared server. Each test has its own names for pools and jobs."""

import http.client
import json
import uuid
from datetime import datetime, timezone
from urllib.parse import urlsplit

import pytest
from azure.batch import BatchClient, models
from azure.core.credentials import AzureNamedKeyCredential
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobServiceClient

from localbatch.api import auth
from localbatch.testing import MACHINE, wait_until
from localbatch.wire import http_date


def make_asker(azure):
    """Return what sends a request by hand, to the account of a server; a body that is None is left out."""

    def send(method, target, body=None, *, key=None, account=None, sent_at=None, path_signed=None, **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        headers = {"ocp-date": http_date(sent_at or datetime.now(timezone.utc))} | headers
        if body is not None:
            headers = {"content-length": str(len(body)), "content-type": "application/json"} | headers
        path, _, query = target.partition("?")
        account = account or azure.account
        text = auth.string_to_sign(account, method, path_signed or path, query, headers)
        headers = {"authorization": f"SharedKey {account}:{auth.sign(key or azure.key, text)}"} | headers
        connection = http.client.HTTPConnection(urlsplit(azure.endpoint).netloc)
        connection.putrequest(method, target, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, json.loads(content) if content else None, answer.headers

    return send


@pytest.fixture(name="make_asker")
def asker_factory():
    """Return what makes an asker of any server."""
    return make_asker


@pytest.fixture
def ask(local_azure):
    """Send a request by hand."""
    return make_asker(local_azure)


@pytest.fixture(scope="session")
def client(local_azure):
    credential = AzureNamedKeyCredential(local_azure.account, local_azure.key)
    with BatchClient(local_azure.endpoint, credential) as client:
        yield client


@pytest.fixture(scope="session")
def blobs(local_azure):
    with BlobServiceClient(local_azure.storage_endpoint, credential=local_azure.storage_key) as client:
        yield client


@pytest.fixture
def name():
    return f"n-{uuid.uuid4().hex}"


def on_cloud_services(pool):
    """Return the JSON of a pool whose nodes can be reimaged. The models of the SDK no longer have its property."""
    kept = {name: value for name, value in pool.as_dict().items() if name != "virtualMachineConfiguration"}
    return kept | {"cloudServiceConfiguration": {"osFamily": "5"}}


@pytest.fixture
def pool_factory(client, name):
    made = []

    def make(nodes=1, *, ready=True, of_cloud_services=False, **options):
        pool_id = f"{name}-{len(made)}"
        made.append(pool_id)
        targets = {} if options.get("enable_auto_scale") else {"target_dedicated_nodes": nodes}
        pool = models.BatchPoolCreateOptions(**{"id": pool_id} | MACHINE | targets | options)
        client.create_pool(on_cloud_services(pool) if of_cloud_services else pool)
        if ready:
            wait_until(
                lambda: (
                    [node.state for node in client.list_nodes(pool_id)] == ["idle"] * nodes
                    and client.get_pool(pool_id).allocation_state == "steady"
                )
            )
        return pool_id

    yield make
    for pool_id in made:
        if any(pool.state == "active" for pool in client.list_pools(filter=f"id eq '{pool_id}'")):
            client.begin_delete_pool(pool_id, polling_interval=0).wait()


@pytest.fixture
def job_factory(client, name):
    made = []

    def make(pool_id="nowhere", **options):
        job_id = f"{name}-{len(made)}"
        made.append(job_id)
        info = models.BatchPoolInfo(pool_id=pool_id)
        client.create_job(models.BatchJobCreateOptions(id=job_id, pool_info=info, **options))
        return job_id

    yield make
    for job_id in made:
        if any(job.state != "deleting" for job in client.list_jobs(filter=f"id eq '{job_id}'")):
            client.begin_delete_job(job_id, polling_interval=0).wait()


@pytest.fixture
def run(client, pool_factory, job_factory):
    """Run one Batch task to its end, in a job and a pool of its own or in those given."""

    def run_to_completion(command_line, *, job_id=None, task_id="task", **options):
        job_id = job_id or job_factory(pool_factory())
        client.create_task(job_id, models.BatchTaskCreateOptions(id=task_id, command_line=command_line, **options))
        return wait_until(lambda: find_completed(client, job_id, task_id))

    return run_to_completion


def find_completed(client, job_id, task_id):
    task = client.get_task(job_id, task_id)
    task.job_id = job_id
    return task if task.state == "completed" else None


@pytest.fixture
def read(client):
    def read_file(task, path="stdout.txt", **options):
        return b"".join(client.download_task_file(task.job_id, task.id, path, **options)).decode()

    return read_file


@pytest.fixture
def refuses():
    """Check that a call is refused with a status and a code."""

    def check(status, code, call, *args, **options):
        with pytest.raises(HttpResponseError) as caught:
            call(*args, **options)
        assert (caught.value.status_code, caught.value.error.code) == (status, code)
        return caught.value

    return check
