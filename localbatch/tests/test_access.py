"""Web pages and other users of the machine cannot use a local Azure, and cannot read its files."""

from __future__ import annotations

import http.client
import os
import stat
from urllib.parse import urlsplit

import pytest
from azure.batch import BatchClient
from azure.core.credentials import AzureNamedKeyCredential
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobServiceClient

from localbatch import DEVELOPMENT_KEY, LocalAzure, LocalBatch
from localbatch.__main__ import main
from localbatch.api.auth import password_header
from localbatch.http_protocol import OwnHostOnly
from localbatch.processes.azurite import STORAGE_KEY
from localbatch.processes.private import ensure_private_folder

SCRIPT = "/_internal/faults"


def send(endpoint, method, target, **headers):
    """Send a request with exactly these headers, and return its status, body and response headers."""
    connection = http.client.HTTPConnection(urlsplit(endpoint).netloc)
    connection.putrequest(method, target, skip_host=True)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    return response.status, body, response.headers


def foreign_headers(endpoint):
    own = urlsplit(endpoint)
    return [
        {"Host": own.netloc, "Origin": "http://evil.example"},
        {"Host": own.netloc, "Origin": "null"},
        {"Host": own.netloc, "Origin": f"http://{own.hostname}:1"},
        {"Host": own.netloc, "Origin": f"https://{own.netloc}"},
        {"Host": f"evil.example:{own.port}"},
        {"Host": f"evil.example:{own.port}", "Origin": f"http://evil.example:{own.port}"},
        {"Host": own.hostname},
        {"Host": ""},
    ]


@pytest.mark.parametrize(
    ("method", "target"), [("GET", "/jobs"), ("OPTIONS", "/jobs"), ("POST", "/pools"), ("POST", SCRIPT), ("GET", "/x")]
)
def test_foreign_host_and_origin_are_refused(local_batch, method, target):
    authorization = password_header(local_batch.account, local_batch.key)
    for headers in foreign_headers(local_batch.endpoint):
        status, body, answer = send(local_batch.endpoint, method, target, Authorization=authorization, **headers)
        assert (status, body.partition(" ")[0]) == (403, "Refused:"), headers
        assert "access-control-allow-origin" not in answer


def test_own_host_and_origin_are_accepted(local_batch):
    port = urlsplit(local_batch.endpoint).port
    for name in ("127.0.0.1", "localhost", "LOCALHOST", "[::1]"):
        headers = {"Host": f"{name}:{port}", "Authorization": password_header(local_batch.account, local_batch.key)}
        for origin in ({}, {"Origin": f"http://{name}:{port}"}):
            assert send(local_batch.endpoint, "GET", SCRIPT, **headers, **origin)[0] == 200


@pytest.mark.parametrize(
    ("endpoint", "host", "status"),
    [
        ("http://127.0.0.1:80", "127.0.0.1", 200),
        ("http://127.0.0.1:80", "127.0.0.1:80", 200),
        ("https://127.0.0.1:443", "localhost", 200),
        ("https://127.0.0.1:80", "127.0.0.1", 403),
    ],
)
def test_default_port_may_be_omitted(endpoint, host, status):
    sent = []

    async def accept(scope, receive, send):
        sent.append({"status": 200})

    async def record(message):
        sent.append(message)

    request = {"type": "http", "headers": [(b"host", host.encode())]}
    with pytest.raises(StopIteration):
        OwnHostOnly(accept, endpoint)(request, None, record).send(None)
    assert sent[0]["status"] == status


@pytest.mark.parametrize("authorization", [{}, {"Authorization": password_header("localbatch", DEVELOPMENT_KEY)}])
def test_fault_script_needs_the_key(local_batch, authorization):
    host = urlsplit(local_batch.endpoint).netloc
    for path in (SCRIPT, "/_internal/storage-faults"):
        for method in ("GET", "POST", "DELETE"):
            assert send(local_batch.endpoint, method, path, Host=host, **authorization)[0] == 401


def list_pools(endpoint, account, key):
    with BatchClient(endpoint, AzureNamedKeyCredential(account, key), retry_total=0) as client:
        return list(client.list_pools())


def test_well_known_keys_are_refused(local_azure):
    with pytest.raises(HttpResponseError):
        list_pools(local_azure.endpoint, local_azure.account, DEVELOPMENT_KEY)
    with (
        BlobServiceClient(local_azure.storage_endpoint, credential=STORAGE_KEY, retry_total=0) as client,
        pytest.raises(HttpResponseError),
    ):
        list(client.list_containers())


def test_accounts_have_different_random_keys(local_azure):
    with LocalBatch() as another:
        keys = [local_azure.key, local_azure.storage_key, another.key, DEVELOPMENT_KEY, STORAGE_KEY]
    assert len(set(keys)) == len(keys)


@pytest.fixture(scope="module")
def private_blob(local_azure):
    """The path of a container with a blob."""
    with BlobServiceClient(local_azure.storage_endpoint, credential=local_azure.storage_key) as client:
        client.create_container("private").upload_blob("blob", b"content")
    return f"{urlsplit(local_azure.storage_endpoint).path}/private"


@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "DELETE", "OPTIONS"])
def test_azurite_refuses_pages_without_the_key(local_azure, private_blob, method):
    """A preflight request is refused, too, because the account has no rules for other origins."""
    endpoint = local_azure.storage_endpoint
    account = urlsplit(endpoint).path
    preflight = {"Access-Control-Request-Method": "PUT"} if method == "OPTIONS" else {}
    for target in (
        f"{account}?comp=list",
        f"{account}?comp=properties&restype=service",
        f"{private_blob}?restype=container",
        f"{private_blob}?comp=list&restype=container",
        f"{private_blob}/blob",
    ):
        for headers in foreign_headers(endpoint)[:-1]:
            status, _, answer = send(endpoint, method, target, x_ms_version="2025-01-05", **headers, **preflight)
            assert status in {400, 403, 404}, headers
            assert "access-control-allow-origin" not in answer


@pytest.fixture
def usual_umask():
    """The umask of most users, with which others can read new files."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_restart_keeps_keys_in_private_folder(tmp_path, usual_umask):
    state = tmp_path / "state"
    with LocalAzure(state_dir=state) as azure:
        keys = azure.key, azure.storage_key
        assert stat.S_IMODE(state.stat().st_mode) == 0o700
        for name in ("batch.key", "storage.key"):
            assert stat.S_IMODE((state / name).stat().st_mode) == 0o600
    with LocalAzure(state_dir=state) as azure:
        assert (azure.key, azure.storage_key) == keys
        assert list_pools(azure.endpoint, azure.account, keys[0]) == []


def test_existing_folder_is_closed_to_others(tmp_path):
    tmp_path.chmod(0o755)
    ensure_private_folder(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_folder_of_all_users_is_refused(tmp_path, capsys):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    assert main(["serve", f"--state={shared}"]) == 1
    assert "All users share the folder" in capsys.readouterr().err
    assert stat.S_IMODE(shared.stat().st_mode) == 0o1777
