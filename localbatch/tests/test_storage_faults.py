"""The proxy in front of the storage account: the official client sees only the injected faults."""

import http.client
import json
import random
import socket
import threading
import urllib.request
import uuid
from datetime import datetime, timedelta, timezone
from urllib.parse import urlsplit

import pytest
from azure.batch import BatchClient, models
from azure.core.credentials import AzureNamedKeyCredential
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError, ServiceResponseError
from azure.storage.blob import (
    BlobClient,
    BlobServiceClient,
    ContainerSasPermissions,
    LinearRetry,
    generate_container_sas,
)

from localbatch import LocalAzure
from localbatch.api.auth import password_header
from localbatch.faults.definitions import REQUEST_FAULTS, FaultError
from localbatch.faults.script import Faults
from localbatch.faults.storage_proxy import OPERATIONS, StorageProxy
from localbatch.testing import MACHINE, wait_until

MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def azure(tmp_path_factory):
    before = set(threading.enumerate())
    with LocalAzure(state_dir=tmp_path_factory.mktemp("azure"), pace="instant", storage_faults=True) as azure:
        yield azure
    assert set(threading.enumerate()) <= before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", urlsplit(azure.storage_endpoint).port))


@pytest.fixture
def faults(azure):
    yield azure.storage_faults
    azure.storage_faults.clear()


@pytest.fixture
def service(azure):
    # With small limits, so that large blobs go in blocks; without retries, so that a fault is seen.
    with BlobServiceClient(
        azure.storage_endpoint,
        credential=azure.storage_key,
        retry_total=0,
        max_single_put_size=MEGABYTE,
        max_block_size=4 * MEGABYTE,
        max_single_get_size=MEGABYTE,
    ) as service:
        yield service


@pytest.fixture
def container(service):
    with service.create_container(f"c-{uuid.uuid4().hex}") as container:
        yield container


@pytest.fixture
def sas_url(azure, container):
    """The URL of a blob with a shared access signature."""
    token = generate_container_sas(
        azure.storage_account,
        container.container_name,
        account_key=azure.storage_key,
        permission=ContainerSasPermissions(read=True, write=True, create=True, list=True),
        expiry=datetime.now(timezone.utc) + timedelta(hours=1),
    )
    return lambda name: f"{container.url}/{name}?{token}"


def fired(faults):
    return [fault["fired"] for fault in faults.listing()]


def test_proxy_forwards_small_blobs(container):
    for name in ("a.txt", "dir/b c.txt", "ümlaut%20+.txt"):
        container.upload_blob(name, name.encode())
    assert sorted(container.list_blob_names()) == ["a.txt", "dir/b c.txt", "ümlaut%20+.txt"]
    assert [container.download_blob(name).readall().decode() for name in container.list_blob_names()] == list(
        container.list_blob_names()
    )
    assert container.get_blob_client("a.txt").get_blob_properties().size == 5
    assert not container.get_blob_client("none").exists()


def test_proxy_forwards_large_blobs(container, faults):
    for operation in ("put_block", "put_block_list", "get_blob"):
        faults.add("delay", operation=operation, seconds=0, times=100)
    content = random.Random(1).randbytes(20 * MEGABYTE)
    container.upload_blob("large", content, max_concurrency=4)
    assert container.download_blob("large", max_concurrency=4).readall() == content
    blocks, lists, downloads = fired(faults)
    assert (blocks, lists) == (5, 1)
    assert downloads > 1


def test_shared_access_signature_holds(sas_url):
    with BlobClient.from_blob_url(sas_url("a"), retry_total=0) as blob:
        blob.upload_blob(b"one")
        assert blob.download_blob().readall() == b"one"


def test_answers_are_those_of_account(azure, container, sas_url):
    container.upload_blob("a", b"one" * 100_000)
    passage = urlsplit(azure.storage_endpoint)
    answers = []
    with StorageProxy(azure.storage_endpoint, azure.storage_faults, port=0) as another:
        for endpoint in (passage, urlsplit(another.endpoint)):
            for method, name in (("GET", "a"), ("HEAD", "a"), ("GET", "none"), ("HEAD", "none"), ("TRACE", "a")):
                url = urlsplit(sas_url(name))
                connection = http.client.HTTPConnection(endpoint.netloc)
                connection.request(method, f"{url.path}?{url.query}")
                answer = connection.getresponse()
                kept = {k: v for k, v in answer.getheaders() if k.lower() not in {"date", "x-ms-request-id"}}
                answers.append((answer.status, answer.reason, kept, len(answer.read())))
                connection.close()
    assert answers[:5] == answers[5:]


def test_connection_is_kept(azure, sas_url):
    url = urlsplit(sas_url("a"))
    connection = http.client.HTTPConnection(urlsplit(azure.storage_endpoint).netloc)
    for method, status in (("PUT", 201), ("GET", 200), ("HEAD", 200), ("GET", 200)):
        body = b"one" if method == "PUT" else None
        connection.request(method, f"{url.path}?{url.query}", body, {"x-ms-blob-type": "BlockBlob"})
        if method == "PUT":
            kept = connection.sock
        answer = connection.getresponse()
        answer.read()
        assert (answer.status, connection.sock) == (status, kept)
    connection.close()


def test_expect_continue_passes(azure, sas_url):
    url = urlsplit(sas_url("a"))
    with socket.create_connection(("127.0.0.1", urlsplit(azure.storage_endpoint).port), timeout=10) as connection:
        connection.sendall(
            f"PUT {url.path}?{url.query} HTTP/1.1\r\nHost: {url.netloc}\r\nx-ms-blob-type: BlockBlob\r\n"
            "Content-Length: 3\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n".encode()
        )
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"one")
        assert receive(connection, 10_000).startswith(b"HTTP/1.1 201 Created\r\n")
    with urllib.request.urlopen(sas_url("a")) as blob:
        assert blob.read() == b"one"


def receive(connection, size):
    received = b""
    while len(received) < size and (part := connection.recv(size - len(received))):
        received += part
    return received


REQUEST = (
    b"PUT /account/c/b%20%C3%BC?sig=a%2Bb HTTP/1.1\r\nhost: other\r\nX-Odd:  two  spaces \r\nX-Odd: twice\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n4;x=y\r\n two\r\n0\r\nTrailer: t\r\n\r\n"
)
ANSWER = b"HTTP/1.1 200 Fine\r\nx-odd:1\r\ntransfer-encoding: chunked\r\n\r\n5\r\nthree\r\n0\r\n\r\n"


def test_proxy_forwards_bytes_unchanged():
    with socket.create_server(("127.0.0.1", 0)) as account:
        target = f"http://127.0.0.1:{account.getsockname()[1]}/account"
        with (
            StorageProxy(target, Faults(OPERATIONS, names=REQUEST_FAULTS), port=0) as passage,
            socket.create_connection(("127.0.0.1", urlsplit(passage.endpoint).port), timeout=10) as client,
        ):
            client.sendall(REQUEST)
            upstream, _ = account.accept()
            with upstream:
                upstream.settimeout(10)
                assert receive(upstream, len(REQUEST)) == REQUEST
                upstream.sendall(ANSWER)
                assert receive(client, len(ANSWER)) == ANSWER


@pytest.mark.parametrize(
    ("options", "status", "code"),
    [
        ({}, 503, "ServerBusy"),
        ({"status": 500, "code": "OperationTimedOut"}, 500, "OperationTimedOut"),
        ({"status": 403, "code": "AuthorizationFailure"}, 403, "AuthorizationFailure"),
    ],
)
def test_error_responses_have_the_storage_format(container, faults, options, status, code):
    faults.add("answer", operation="put_blob", **options)
    with pytest.raises(HttpResponseError) as caught:
        container.upload_blob("a", b"one")
    assert (caught.value.status_code, caught.value.error_code) == (status, code)
    assert list(container.list_blob_names()) == []
    container.upload_blob("a", b"one")
    assert fired(faults) == [1]


def test_client_retries_transient_errors(azure, faults):
    faults.add("answer", operation="create_container", times=2, status=500)
    retry = LinearRetry(backoff=0, random_jitter_range=0)
    with BlobServiceClient(azure.storage_endpoint, credential=azure.storage_key, retry_policy=retry) as service:
        service.create_container(f"c-{uuid.uuid4().hex}").close()
    assert fired(faults) == [2]


def test_head_error_has_no_body(container, faults):
    faults.add("answer", operation="get_blob_properties", status=503)
    with pytest.raises(HttpResponseError) as caught:
        container.get_blob_client("a").get_blob_properties()
    assert caught.value.status_code == 503
    assert not container.get_blob_client("a").exists()


def test_drop_before_has_no_effect(container, faults):
    faults.add("drop_before", operation="put_blob")
    with pytest.raises(ServiceResponseError):
        container.upload_blob("a", b"one")
    assert list(container.list_blob_names()) == []


def test_drop_after_takes_effect(container, faults):
    faults.add("drop_after", operation="put_blob")
    with pytest.raises(ServiceResponseError):
        container.upload_blob("a", b"one")
    assert container.download_blob("a").readall() == b"one"


def test_delay_affects_one_request_only(container, faults):
    container.upload_blob("a", b"one")
    faults.add("delay", operation="get_blob", seconds=30, path="*/slow")
    slow = threading.Thread(target=container.get_blob_client("slow").exists, daemon=True)
    slow.start()
    assert container.download_blob("a").readall() == b"one"
    faults.clear()
    faults.add("delay", operation="get_blob", seconds=0.2)
    started_at = datetime.now(timezone.utc)
    container.download_blob("a").readall()
    assert datetime.now(timezone.utc) - started_at >= timedelta(seconds=0.2)
    slow.join()


def test_seed_determines_the_requests_hit(container, faults):
    def hits():
        faults.clear()
        faults.add("answer", operation="put_blob", probability=0.5, seed=7)
        hit = []
        for number in range(20):
            try:
                container.upload_blob(f"{number}", b"", overwrite=True)
                hit.append(False)
            except HttpResponseError:
                hit.append(True)
        return hit

    first = hits()
    assert 0 < sum(first) < 20
    assert hits() == first


REQUESTS = {
    "list_containers": lambda service, container, blob: list(service.list_containers()),
    "get_service_properties": lambda service, container, blob: service.get_service_properties(),
    "create_container": lambda service, container, blob: service.create_container("other"),
    "get_container_properties": lambda service, container, blob: container.get_container_properties(),
    "delete_container": lambda service, container, blob: container.delete_container(),
    "list_blobs": lambda service, container, blob: list(container.list_blobs()),
    "set_container_metadata": lambda service, container, blob: container.set_container_metadata({"a": "b"}),
    "get_container_acl": lambda service, container, blob: container.get_container_access_policy(),
    "put_blob": lambda service, container, blob: blob.upload_blob(b""),
    "copy_blob": lambda service, container, blob: blob.start_copy_from_url(blob.url),
    "get_blob": lambda service, container, blob: blob.download_blob(),
    "get_blob_properties": lambda service, container, blob: blob.get_blob_properties(),
    "delete_blob": lambda service, container, blob: blob.delete_blob(),
    "put_block": lambda service, container, blob: blob.stage_block("AA==", b"one"),
    "put_block_from_url": lambda service, container, blob: blob.stage_block_from_url("AA==", blob.url),
    "put_block_list": lambda service, container, blob: blob.commit_block_list(["AA=="]),
    "get_block_list": lambda service, container, blob: blob.get_block_list(),
    "set_blob_metadata": lambda service, container, blob: blob.set_blob_metadata({"a": "b"}),
    "get_blob_tags": lambda service, container, blob: blob.get_blob_tags(),
}


@pytest.mark.parametrize("operation", REQUESTS)
def test_operations_are_told_apart(service, container, faults, operation):
    faults.add("answer", operation=operation)
    with container.get_blob_client("dir/a") as blob, pytest.raises(HttpResponseError) as caught:
        REQUESTS[operation](service, container, blob)
    assert caught.value.status_code == 503


def test_nodes_take_passage_too(azure, container, sas_url, faults):
    container.upload_blob("in", b"one")
    faults.add("answer", operation="get_blob", path="*/in", times=2)
    faults.add("delay", operation="put_blob", seconds=0)
    output = models.OutputFile(
        file_pattern="out",
        destination=models.OutputFileDestination(
            container=models.OutputFileBlobContainerDestination(
                container_url=sas_url("").replace("/?", "?"), path="out"
            )
        ),
        upload_options=models.OutputFileUploadConfiguration(upload_condition="tasksuccess"),
    )
    with BatchClient(azure.endpoint, AzureNamedKeyCredential(azure.account, azure.key)) as client:
        client.create_pool(models.BatchPoolCreateOptions(id="p", **MACHINE, target_dedicated_nodes=1))
        client.create_job(models.BatchJobCreateOptions(id="j", pool_info=models.BatchPoolInfo(pool_id="p")))
        task = models.BatchTaskCreateOptions(
            id="t",
            command_line="cp in out",
            resource_files=[models.ResourceFile(http_url=sas_url("in"), file_path="in")],
            output_files=[output],
        )
        client.create_task("j", task)
        wait_until(lambda: client.get_task("j", "t").state == "completed")
        assert client.get_task("j", "t").execution_info.result == "success"
    assert fired(faults) == [2, 1]
    assert container.download_blob("out").readall() == b"one"


def test_script_is_reached_from_outside(azure, faults):
    url = f"{azure.endpoint}/_internal/storage-faults"
    headers = {"Authorization": password_header(azure.account, azure.key)}
    body = json.dumps({"fault": "drop_after", "operation": "put_blob"}).encode()
    with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as answer:
        assert answer.status == 201
    assert [fault["fault"] for fault in faults.listing()] == ["drop_after"]
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
        assert json.load(answer) == {"faults": faults.listing()}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers, method="DELETE")) as answer:
        assert answer.status == 204
    assert faults.listing() == []


def test_storage_script_refuses_node_faults(faults):
    with pytest.raises(FaultError, match="preempt_node cannot happen here"):
        faults.add("preempt_node", pool="p")


def test_storage_faults_need_the_option():
    with pytest.raises(FaultError, match="storage_faults=True"):
        _ = LocalAzure().storage_faults


def test_proxy_closes_if_the_account_is_down():
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with (
        StorageProxy(f"http://127.0.0.1:{port}/account", Faults(OPERATIONS, names=REQUEST_FAULTS), port=0) as passage,
        pytest.raises(http.client.RemoteDisconnected),
    ):
        urllib.request.urlopen(f"{passage.endpoint}/c?restype=container")


def test_missing_blob_is_missed(container):
    with pytest.raises(ResourceNotFoundError):
        container.download_blob("none")
