"""Answers that do not come from the service, or not as a whole, never count as answers."""

from __future__ import annotations

import hashlib
import io
import time
import uuid
from types import SimpleNamespace

import pytest
from answer_proxy import AnswerProxy, broken_off, half, html, html_forbidden, html_not_found, html_with_headers, json
from azure.core.pipeline.transport import HttpTransport
from tests_support import read_blob, wait_until

from tasks.azure import transport
from tasks.azure.batch import BatchAccount
from tasks.azure.blob import BLOCK_BYTES, BlobAccount
from tasks.azure.settings import AzureSettings
from tasks.azure.values import BatchTaskSpec, JobSpec, StartTask
from tasks.errors import ServiceError

pytestmark = pytest.mark.xdist_group("answers")


@pytest.fixture(scope="module")
def settings(local_azure):
    variables = {name.removeprefix("TOPN_").lower(): value for name, value in local_azure.environment.items()}
    return AzureSettings(**variables)


@pytest.fixture(autouse=True)
def no_delays(monkeypatch):
    """The delays between retries; the SDKs do not actually sleep."""
    monkeypatch.setattr(HttpTransport, "sleep", lambda _transport, _seconds: None)
    monkeypatch.setattr("azure.storage.blob._download.time", SimpleNamespace(sleep=lambda _seconds: None))
    monkeypatch.setattr("tasks.azure.client.MAX_REQUEST_RETRIES", 1)


@pytest.fixture(scope="module")
def batch_proxy_of_module(settings):
    with AnswerProxy(settings.batch_endpoint) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def blob_proxy_of_module(settings):
    with AnswerProxy(settings.storage_endpoint) as proxy:
        yield proxy


@pytest.fixture
def batch_proxy(batch_proxy_of_module):
    batch_proxy_of_module.fault(None)
    return batch_proxy_of_module


@pytest.fixture
def blob_proxy(blob_proxy_of_module):
    blob_proxy_of_module.fault(None)
    return blob_proxy_of_module


@pytest.fixture
def proxied_batch(settings, batch_proxy):
    return BatchAccount(settings.model_copy(update={"batch_endpoint": batch_proxy.endpoint}))


@pytest.fixture
def proxied_blobs(settings, blob_proxy):
    return BlobAccount(settings.model_copy(update={"storage_endpoint": blob_proxy.endpoint}))


@pytest.fixture(scope="module")
def job(settings, shared_parts):
    """A job with a Batch task that has completed, and its pool with one node."""
    batch = BatchAccount(settings)
    batch.add_tasks(shared_parts[1].job_id, [task_spec("answers")])
    wait_until(lambda: batch.get_task_counts(shared_parts[1].job_id).completed, "the Batch task")
    return shared_parts[1]


def task_spec(task_id):
    return BatchTaskSpec(task_id=task_id, command_line="true", resource_files=(), uploads=(), retries=0)


def new_id():
    return f"answers-{uuid.uuid4().hex}"


START_TASK = StartTask(command_line="true", files=())


def read_node_file(batch, job):
    [node] = batch.list_nodes(job.pool_id)
    return batch.read_node_file_tail(job.pool_id, node.node_id, "startup/stdout.txt")


# Each operation of the Batch client, and whether its answer has a body.
BATCH = {
    "images": (lambda batch, job: batch.list_images(), True),
    "pool": (lambda batch, job: batch.get_pool(job.pool_id), True),
    "nodes": (lambda batch, job: batch.list_nodes(job.pool_id), True),
    "job": (lambda batch, job: batch.get_job(job.job_id), True),
    "add_tasks": (lambda batch, job: batch.add_tasks(job.job_id, [task_spec(new_id())]).rejected, True),
    "task_counts": (lambda batch, job: batch.get_task_counts(job.job_id), True),
    "list_completed_tasks": (lambda batch, job: len(list(batch.list_completed_tasks(job.job_id, None))), True),
    "list_waiting_tasks": (lambda batch, job: batch.list_waiting_tasks(job.job_id), True),
    "jobs": (lambda batch, job: batch.list_jobs(job.job_id), True),
    "pools": (lambda batch, job: batch.list_pools(job.pool_id), True),
    "list_pools_with_resize_errors": (lambda batch, job: batch.list_pools_with_resize_errors(), True),
    "list_node_allocations": (lambda batch, job: batch.list_node_allocations(job.pool_id), True),
    "update_start_task": (lambda batch, job: batch.update_start_task(job.pool_id, START_TASK), False),
    "create_job": (lambda batch, job: batch.create_job(JobSpec(job_id=new_id(), **JOB)), False),
    "delete_task": (lambda batch, job: batch.delete_task(job.job_id, new_id(), '"0x0"'), False),
    "reactivate_task": (lambda batch, job: batch.reactivate_task(job.job_id, "answers"), False),
    "check_write_access": (lambda batch, job: batch.check_write_access(), False),
    "read_node_file_tail": (read_node_file, False),
}
JOB = {"pool_id": "nowhere", "wall_clock_seconds": 60, "metadata": {}}


def outcome(operation, *arguments):
    """Return what an operation returns, or its error."""
    try:
        return operation(*arguments)
    except ServiceError as error:
        return error


PAGES = (html, html_with_headers, html_forbidden, html_not_found)

WRONG_SHAPES = (
    half,
    broken_off,
    *map(json, (b"", b"{}", b"[]", b"null", b'{"value": 1}', b'{"value": [1]}', b'{"value": [{"state": "active"}]}')),
    json(b'{"value": [{}], "taskCounts": {"active": "x"}}'),
)


def assert_transient(operation, proxy, replaces, *arguments):
    """Assert that each replacement of all answers makes an operation fail with a transient error."""
    for replace in replaces:
        proxy.fault(replace)
        error = outcome(operation, *arguments)
        assert isinstance(error, ServiceError), (replace, error)
        assert error.transient, (replace, error)


@pytest.mark.parametrize("name", BATCH)
def test_page_instead_of_batch_answer_is_transient(proxied_batch, batch_proxy, job, name):
    assert_transient(BATCH[name][0], batch_proxy, PAGES, proxied_batch, job)
    assert batch_proxy.replaced > 1, "it is retried"


@pytest.mark.parametrize("name", [name for name, (_, has_body) in BATCH.items() if has_body])
def test_wrong_shape_of_batch_answer_is_transient(proxied_batch, batch_proxy, job, name):
    assert_transient(BATCH[name][0], batch_proxy, WRONG_SHAPES, proxied_batch, job)


@pytest.mark.parametrize("name", ["jobs", "pool", "nodes", "add_tasks"])
def test_one_invalid_batch_answer_changes_nothing(proxied_batch, batch_proxy, job, name):
    expected = outcome(BATCH[name][0], proxied_batch, job)
    for replace in (html, half, broken_off, html_not_found):
        batch_proxy.fault(replace, times=1)
        assert outcome(BATCH[name][0], proxied_batch, job) == expected
        assert batch_proxy.replaced == 1


def test_invalid_answer_to_deletion_is_reported(proxied_batch, batch_proxy):
    batch_proxy.fault(html)
    failures = proxied_batch.delete_jobs_and_pools([new_id()], [new_id()], 1)
    assert [error.transient for error in failures.values()] == [True, True]


# Each operation of the storage client.
NO_CONTENT_MD5 = hashlib.md5(b"").digest()

BLOBS = {
    "check": lambda blobs, name, path: blobs.check(),
    "create_container": lambda blobs, name, path: blobs.create_container(new_id(), {}),
    "container_metadata": lambda blobs, name, path: blobs.get_container_metadata(name),
    "containers": lambda blobs, name, path: blobs.list_containers(name),
    "delete_container": lambda blobs, name, path: blobs.delete_container(new_id()),
    "upload_bytes": lambda blobs, name, path: blobs.upload_bytes(name, "new", b"content"),
    "upload_file": lambda blobs, name, path: blobs.upload_file(name, path, *digest(path)),
    "upload_archive": lambda blobs, name, path: blobs.upload_archive(name, "new", io.BytesIO(b"content")),
    "upload_document": lambda blobs, name, path: blobs.upload_document(name, "new", io.BytesIO(), NO_CONTENT_MD5),
    "check_access": lambda blobs, name, path: blobs.check_access(name, "new"),
    "read": lambda blobs, name, path: blobs.read(name, "blob")[0],
    "download": lambda blobs, name, path: read_blob(blobs, name, "blob"),
    "download_tail": lambda blobs, name, path: blobs.download_tail(name, "blob", 5),
}


def digest(path):
    content = path.read_bytes()
    return len(content), hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="module")
def container(settings):
    """A container with a blob of more than one block."""
    name = new_id()
    blobs = BlobAccount(settings)
    blobs.create_container(name, {"owner": "answers"})
    blobs.upload_bytes(name, "blob", CONTENT)
    return name


CONTENT = bytes(range(256)) * (BLOCK_BYTES // 256 + 1)


@pytest.fixture
def path(tmp_path):
    """A file with new content, so that its upload does not find an existing blob."""
    file = tmp_path / "file"
    file.write_bytes(uuid.uuid4().bytes + CONTENT)
    return file


@pytest.mark.parametrize("name", BLOBS)
def test_page_instead_of_storage_answer_is_transient(proxied_blobs, blob_proxy, container, path, name):
    assert_transient(BLOBS[name], blob_proxy, PAGES, proxied_blobs, container, path)


@pytest.mark.parametrize("name", ["check", "containers", "download", "download_tail", "read"])
def test_wrong_body_of_storage_answer_is_transient(proxied_blobs, blob_proxy, container, path, name):
    replaces = (half, broken_off, json(b""), json(b"<Error/>"), json(b"{}"))
    assert_transient(BLOBS[name], blob_proxy, replaces, proxied_blobs, container, path)


@pytest.mark.parametrize(
    "name",
    ["container_metadata", "upload_bytes", "upload_file", "upload_archive", "upload_document", "read", "download"],
)
def test_one_invalid_storage_answer_changes_nothing(proxied_blobs, blob_proxy, container, path, name):
    expected = outcome(BLOBS[name], proxied_blobs, container, path)
    for replace in (html, html_forbidden, html_not_found, half, broken_off):
        blob_proxy.fault(replace, times=1)
        assert outcome(BLOBS[name], proxied_blobs, container, path) == expected


def trickle(reply):
    """Send the body byte by byte; each block of time is short, because the limits are."""
    body = reply.body
    reply.length = len(body)

    def blocks():
        for byte in body:
            time.sleep(0.003)
            yield bytes([byte])

    reply.body = blocks()


def pause(reply):
    """Send the first byte of the body, and nothing more for longer than the limit."""
    body = reply.body
    reply.length = len(body)

    def blocks():
        yield body[:1]
        time.sleep(1)
        yield body[1:]

    reply.body = blocks()


@pytest.mark.parametrize("replace", [trickle, pause])
def test_slow_batch_answer_ends_and_is_retried(proxied_batch, batch_proxy, job, monkeypatch, replace):
    monkeypatch.setattr(transport, "SLOW_SECONDS", 0.2)
    batch_proxy.fault(replace, times=1)
    assert proxied_batch.get_job(job.job_id).job_id == job.job_id
    assert batch_proxy.replaced == 1


@pytest.mark.parametrize("replace", [trickle, pause])
def test_slow_download_ends_and_is_retried(proxied_blobs, blob_proxy, container, monkeypatch, replace):
    monkeypatch.setattr(transport, "SLOW_SECONDS", 0.2)
    blob_proxy.fault(replace, times=1)
    assert read_blob(proxied_blobs, container, "blob") == CONTENT


def test_slow_answers_are_named(proxied_batch, batch_proxy, job, monkeypatch):
    monkeypatch.setattr(transport, "SLOW_SECONDS", 0.05)
    batch_proxy.fault(trickle)
    error = outcome(proxied_batch.get_job, job.job_id)
    assert error.transient, repr(error.__cause__)
    assert "slower than 100 kB/s" in str(error)


def test_short_slow_answer_is_accepted(proxied_batch, batch_proxy, job, monkeypatch):
    """An answer that is complete within the time may be as slow as it likes."""
    monkeypatch.setattr(transport, "SLOW_SECONDS", 30.0)
    batch_proxy.fault(trickle)
    assert proxied_batch.get_task_counts(job.job_id).completed >= 1
    assert batch_proxy.replaced == 1
