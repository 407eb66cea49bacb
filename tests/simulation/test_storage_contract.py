"""Contract tests for Azurite and for the in-memory storage account of the simulation."""

from __future__ import annotations

import hashlib
import random
import urllib.request
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from io import BytesIO
from urllib.parse import parse_qs, quote, urlencode
from xml.etree import ElementTree as ET

import pytest
import requests
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobBlock, generate_blob_sas, generate_container_sas
from tests_support import new_container, read_blob

from localbatch.nodes.transfer import StorageClient, TransferError, fetch_resource_files, send_output_files
from localbatch.processes.azurite import STORAGE_ACCOUNT, STORAGE_KEY
from simulation.storage import Container, InProcessAdapter, InProcessHandler, InProcessSession, MemoryStorage, Request
from tasks.azure import transport as azure_transport
from tasks.azure.blob import BLOCK_BYTES, BlobAccount
from tasks.azure.settings import AzureSettings
from tasks.errors import CONDITION_NOT_MET, AlreadyExistsError, NotFoundError, ServiceError

ODD_NAMES = ["a b", "ü/ß", "100%25", "a+b", "q?x=1&y#z", "dir/sub/file.txt", "~(1)!*'", "日本", "a\\b", "<&>"]
PUT = {"x-ms-blob-type": "BlockBlob"}


def now():
    return datetime.now(timezone.utc)


@dataclass
class Account:
    """A storage account, with the product's client and the clients of a node."""

    blobs: BlobAccount
    http: requests.Session
    node: StorageClient
    key: str

    def sign(self, container, blob=None, *, permission, starts_in=None, expires_in=3600):
        """Return the signed URL of a container or a blob."""
        start = None if starts_in is None else now() + timedelta(seconds=starts_in)
        options = {"permission": permission, "start": start, "expiry": now() + timedelta(seconds=expires_in)}
        if blob is None:
            signature = generate_container_sas(STORAGE_ACCOUNT, container, self.key, **options)
            return f"{self.blobs._service.get_container_client(container).url}?{signature}"
        signature = generate_blob_sas(STORAGE_ACCOUNT, container, blob, account_key=self.key, **options)
        return f"{self.blobs._service.get_blob_client(container, blob).url}?{signature}"

    def send(self, method, url, body=b"", **headers):
        """Send a request with only the URL's signature; return the status, and the error code or the body."""
        response = self.http.request(method, url, data=body, headers=headers)
        return response.status_code, response.headers.get("x-ms-error-code", response.content)


def open_account(kind, request, monkeypatch):
    http = requests.Session()
    http.trust_env = False
    node = StorageClient(now)
    key = STORAGE_KEY
    if kind == "memory":
        storage = MemoryStorage(STORAGE_ACCOUNT, STORAGE_KEY, now)
        endpoint = storage.endpoint
        http.mount("http://", InProcessAdapter(storage.answer))
        node._opener = urllib.request.OpenerDirector()
        for handler in (
            InProcessHandler(storage.answer),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
        ):
            node._opener.add_handler(handler)
    else:
        azure = request.getfixturevalue("local_azure")
        endpoint, key = azure.storage_endpoint, azure.storage_key
    settings = AzureSettings(storage_endpoint=endpoint, storage_account=STORAGE_ACCOUNT, storage_key=key)
    with monkeypatch.context() as patch:
        if kind == "memory":
            patch.setattr(azure_transport, "Session", lambda: InProcessSession(storage.answer))
        return Account(BlobAccount(settings), http, node, key)


@pytest.fixture(params=["azurite", "memory"])
def account(request, monkeypatch):
    return open_account(request.param, request, monkeypatch)


@pytest.fixture
def blobs(account):
    return account.blobs


@pytest.fixture
def container(blobs):
    with new_container(blobs, "test", {"owner": "test", "run": "a b"}) as name:
        yield name


def test_checks_accept_empty_account(blobs):
    blobs.check()
    blobs.check_write_access()


def test_container_keeps_its_metadata(blobs, container):
    assert blobs.get_container_metadata(container) == {"owner": "test", "run": "a b"}


def test_metadata_are_replaced_as_a_whole(blobs, container):
    blobs.write_container_metadata(container, {"run": "c"})
    assert blobs.get_container_metadata(container) == {"run": "c"}
    with pytest.raises(NotFoundError):
        blobs.write_container_metadata(f"{container}-none", {})


def test_container_name_is_unique(blobs, container):
    with pytest.raises(AlreadyExistsError):
        blobs.create_container(container, {})
    assert blobs.get_container_metadata(container) == {"owner": "test", "run": "a b"}


def test_deleted_container_is_gone_at_once(blobs, container):
    blobs.upload_bytes(container, "a", b"content")
    blobs.delete_container(container)
    blobs.delete_container(container)
    for use in (
        lambda: blobs.get_container_metadata(container),
        lambda: read_blob(blobs, container, "a"),
        lambda: blobs.upload_bytes(container, "a", b""),
        lambda: blobs.upload_archive(container, "a", BytesIO(bytes(BLOCK_BYTES + 1))),
    ):
        with pytest.raises(NotFoundError) as caught:
            use()
        assert caught.value.code == "ContainerNotFound"
    blobs.create_container(container, {})
    with pytest.raises(NotFoundError):
        read_blob(blobs, container, "a")


@pytest.mark.parametrize(
    ("name", "code"), [("UPPER", "InvalidResourceName"), ("a--b", "InvalidResourceName"), ("ab", "OutOfRangeInput")]
)
def test_invalid_container_names_are_rejected(blobs, name, code):
    with pytest.raises(HttpResponseError) as caught:
        blobs._service.create_container(name)
    assert (caught.value.status_code, caught.value.error_code) == (400, code)


def test_containers_are_listed_by_prefix_in_pages(blobs):
    prefix = f"page-{uuid.uuid4().hex[:8]}"
    expected = {f"{prefix}-{i}": {"i": str(i)} for i in range(5)}
    for name, metadata in reversed(expected.items()):
        blobs.create_container(name, metadata)
    found = blobs.list_containers(prefix)
    assert {name: container.metadata for name, container in found.items()} == expected
    assert all(timedelta(0) <= container.age < timedelta(minutes=5) for container in found.values())
    assert list(blobs.list_containers(f"{prefix}-3")) == [f"{prefix}-3"]
    assert blobs.list_containers(f"{prefix}-x") == {}
    pages, token = [], None
    while token or not pages:
        pager = blobs._service.list_containers(prefix, include_metadata=False, results_per_page=2).by_page(token)
        pages.append([(item.name, item.metadata) for item in next(pager)])
        token = pager.continuation_token
    assert pages == [[(name, None) for name in list(expected)[i : i + 2]] for i in (0, 2, 4)]
    for name in expected:
        blobs.delete_container(name)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_blobs_may_have_odd_names(account, container, name):
    content = name.encode()
    account.blobs.upload_bytes(container, name, content)
    assert read_blob(account.blobs, container, name) == content
    url = account.blobs.read_url(container, name.replace("\\", "/"), now() + timedelta(hours=1))
    assert account.send("GET", url) == (200, content)
    assert list_blobs(account, container) == (200, [name.replace("\\", "/")])


def test_blob_is_overwritten_unless_forbidden(blobs, container):
    blobs.upload_bytes(container, "a", b"first")
    blobs.upload_bytes(container, "a", b"second")
    with pytest.raises(HttpResponseError) as caught:
        blobs._service.get_blob_client(container, "a").upload_blob(b"third")
    assert caught.value.error_code == "BlobAlreadyExists"
    assert read_blob(blobs, container, "a") == b"second"


@pytest.mark.parametrize("last_bytes", [None, 1, 3])
@pytest.mark.parametrize("content", [b"", b"1", b"0123456789"])
def test_blob_is_read_whole_or_from_end(blobs, container, content, last_bytes):
    blobs.upload_bytes(container, "a", content)
    read = read_blob(blobs, container, "a") if last_bytes is None else blobs.download_tail(container, "a", last_bytes)
    assert read == content[-(last_bytes or 99) :]


@pytest.mark.parametrize("last_bytes", [None, 5])
def test_missing_blobs_and_containers_are_distinguished(blobs, container, last_bytes):
    for name, code in ((container, "BlobNotFound"), ("missing", "ContainerNotFound")):
        with pytest.raises(NotFoundError) as caught:
            read_blob(blobs, name, "a") if last_bytes is None else blobs.download_tail(name, "a", last_bytes)
        assert caught.value.code == code


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES, BLOCK_BYTES + 1])
def test_file_arrives_under_its_hash(blobs, container, tmp_path, size):
    content = random.Random(size).randbytes(size)
    (tmp_path / "file").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    for _ in range(2):
        assert blobs.upload_file(container, tmp_path / "file", size, digest)
    assert read_blob(blobs, container, digest) == content


@pytest.mark.parametrize("size", [1, BLOCK_BYTES + 1])
def test_changed_file_creates_no_blob(blobs, container, tmp_path, size):
    (tmp_path / "file").write_bytes(bytes(size))
    digest = hashlib.sha256(b"something else").hexdigest()
    assert not blobs.upload_file(container, tmp_path / "file", size, digest)
    with pytest.raises(NotFoundError):
        read_blob(blobs, container, digest)


def test_archive_is_uploaded_as_stream(blobs, container):
    content = random.Random(1).randbytes(BLOCK_BYTES + 1000)
    for archive in (content[:1000], content):
        blobs.upload_archive(container, "archive", BytesIO(archive))
        assert read_blob(blobs, container, "archive") == archive


def upload(blobs, container, content, etag=None, md5=None):
    """Upload a document as the blob `a`; return its ETag, or the error code."""
    digest = hashlib.md5(content).digest() if md5 is None else md5
    try:
        blobs.upload_document(container, "a", BytesIO(content), digest, etag)
    except ServiceError as error:
        return error.code
    return blobs.read(container, "a")[1]


def test_document_replaces_only_expected_version(blobs, container):
    for content in (b"small", bytes(BLOCK_BYTES + 1)):
        first = upload(blobs, container, content, "")
        assert upload(blobs, container, b"other", "") == "BlobAlreadyExists"
        second = upload(blobs, container, content + b"2", first)
        assert second != first
        assert upload(blobs, container, b"other" + content, first) == CONDITION_NOT_MET
        assert blobs.read(container, "a") == (content + b"2", second)
        blobs.delete_blob(container, "a")
        blobs.delete_blob(container, "a")
        assert upload(blobs, container, content, first) == CONDITION_NOT_MET
        assert list(blobs.list_blobs(container)) == []


def test_listing_has_hashes_of_documents(blobs, container):
    for content in (b"", b"small", bytes(BLOCK_BYTES + 1)):
        upload(blobs, container, content)
        assert [blob.md5 for blob in blobs.list_blobs(container)] == [hashlib.md5(content).hexdigest()]
    blobs.upload_archive(container, "a", BytesIO(bytes(BLOCK_BYTES + 1)))
    assert [blob.md5 for blob in blobs.list_blobs(container)] == [""]
    assert upload(blobs, container, b"small", md5=bytes(16)) == "Md5Mismatch"


def test_write_access_is_checked_without_a_write(blobs, container):
    blobs.check_access(container, "a")
    assert list(blobs.list_blobs(container)) == []
    upload(blobs, container, b"content")
    blobs.check_access(container, "a")
    assert blobs.read(container, "a")[0] == b"content"
    with pytest.raises(NotFoundError) as caught:
        blobs.check_access(f"{container}-none", "a")
    assert caught.value.code == "ContainerNotFound"


def test_chunked_download_expects_one_version(blobs, container):
    client = blobs._service.get_blob_client(container, "a")
    client.upload_blob(b"0123456789")
    first = client.get_blob_properties().etag
    client.upload_blob(b"9876543210", overwrite=True)
    headers = {"If-Match": first}
    with pytest.raises(HttpResponseError) as caught:
        client.download_blob(offset=5, headers=headers)
    assert (caught.value.status_code, caught.value.error_code) == (412, "ConditionNotMet")


@pytest.mark.parametrize(
    ("wanted", "status", "expected"),
    [
        ("bytes=0-", 206, b"0123456789"),
        ("bytes=3-5", 206, b"345"),
        ("bytes=8-99", 206, b"89"),
        ("bytes=11-", 416, "InvalidRange"),
        ("bytes=5-3", 200, b"0123456789"),
        ("nonsense", 200, b"0123456789"),
    ],
)
@pytest.mark.parametrize("header", ["Range", "x-ms-range"])
def test_range_selects_bytes(account, container, header, wanted, status, expected):
    account.blobs.upload_bytes(container, "a", b"0123456789")
    assert account.send("GET", account.sign(container, "a", permission="r"), **{header: wanted}) == (status, expected)


def test_block_list_selects_and_orders_blocks(blobs, container):
    client = blobs._service.get_blob_client(container, "a")
    for name in ("1", "2", "3"):
        client.stage_block(name, name.encode())
    with pytest.raises(NotFoundError):
        read_blob(blobs, container, "a")
    client.commit_block_list([BlobBlock("3"), BlobBlock("1")])
    assert read_blob(blobs, container, "a") == b"31"
    client.stage_block("1", b"one")
    client.commit_block_list([BlobBlock("1"), BlobBlock("3"), BlobBlock("3")])
    assert read_blob(blobs, container, "a") == b"one33"
    with pytest.raises(HttpResponseError) as caught:
        client.commit_block_list([BlobBlock("2")])
    assert (caught.value.status_code, caught.value.error_code) == (400, "InvalidBlockList")
    assert read_blob(blobs, container, "a") == b"one33"


def test_blob_beyond_one_request_is_read_whole(blobs, container):
    """The SDK downloads a blob above 32 MiB in several requests."""
    content = b"0123456789abcdef" * (33 * 1024 * 1024 // 16)
    blobs.upload_bytes(container, "large", content)
    assert hashlib.sha256(read_blob(blobs, container, "large")).digest() == hashlib.sha256(content).digest()


def test_containers_beyond_one_page_are_listed(monkeypatch):
    """A page has at most 5,000 containers."""
    storage = MemoryStorage(STORAGE_ACCOUNT, STORAGE_KEY, now)
    storage.containers |= {f"many-{number}": Container({}, now(), "etag") for number in range(5001)}
    monkeypatch.setattr(azure_transport, "Session", lambda: InProcessSession(storage.answer))
    settings = AzureSettings(
        storage_endpoint=storage.endpoint, storage_account=STORAGE_ACCOUNT, storage_key=STORAGE_KEY
    )
    assert len(BlobAccount(settings).list_containers("many-")) == 5001


def test_malformed_requests_are_rejected(account, container):
    url = account.sign(container, "a", permission="rcwd")
    assert account.send("PUT", f"{url}&comp=blocklist", b"<BlockList>", **{"Content-Type": "application/xml"})[0] == 400
    assert account.send("PUT", url, b"x")[0] == 400
    assert account.send("PATCH", url)[0] == 400


def list_blobs(account, container, **query):
    """List the names of blobs with a container signature, as a node does."""
    url = account.sign(container, permission="l")
    status, body = account.send("GET", f"{url}&{urlencode({'restype': 'container', 'comp': 'list', **query})}")
    if status != 200:
        return status, body
    listing = ET.fromstring(body)
    names = [name.text for name in listing.iterfind("Blobs/Blob/Name")]
    marker = listing.findtext("NextMarker")
    return (status, names, marker) if marker else (status, names)


def test_blobs_are_listed_by_prefix_in_pages(account, container):
    names = ["B", "a", "a/b", "b", "ü", "\U0001f600", "\uff5e"]
    assert list_blobs(account, container) == (200, [])
    for name in names:
        account.blobs.upload_bytes(container, name, b"")
    assert list_blobs(account, container) == (200, names)
    assert list_blobs(account, container, prefix="a") == (200, ["a", "a/b"])
    assert list_blobs(account, container, maxresults="2") == (200, ["B", "a"], "a")
    assert list_blobs(account, container, maxresults="2", marker="a") == (200, ["a/b", "b"], "b")
    assert list_blobs(account, container, maxresults="3", marker="b") == (200, names[4:])
    assert list_blobs(account, container, startFrom="b") == (200, names[3:])
    assert list_blobs(account, container, prefix="a", startFrom="a/") == (200, ["a/b"])


def test_read_signature_reads_its_blob_only(account, container):
    account.blobs.upload_bytes(container, "a", b"content")
    account.blobs.upload_bytes(container, "b", b"secret")
    url = account.blobs.read_url(container, "a", now() + timedelta(hours=1))
    base, _, signature = url.partition("?")
    assert account.send("GET", url) == (200, b"content")
    assert account.send("HEAD", url) == (200, b"")
    assert account.send("GET", f"{base[:-1]}b?{signature}") == (403, "AuthorizationFailure")
    assert account.send("GET", base) == (403, "AuthorizationFailure")
    assert account.send("PUT", url, b"changed", **PUT) == (403, "AuthorizationPermissionMismatch")
    assert account.send("DELETE", url) == (403, "AuthorizationPermissionMismatch")
    listing = f"{base.rpartition('/')[0]}?restype=container&comp=list&{signature}"
    assert account.send("GET", listing) == (403, "AuthorizationFailure")
    assert read_blob(account.blobs, container, "a") == b"content"


def test_write_signature_writes_to_its_container_only(account, container):
    other = f"{container}-b"
    account.blobs.create_container(other, {})
    base, _, signature = account.blobs.write_url(container, now() + timedelta(hours=1)).partition("?")
    url = f"{base}/a?{signature}"
    for content in (b"first", b"second"):
        assert account.send("PUT", url, content, **PUT)[0] == 201
        assert read_blob(account.blobs, container, "a") == content
    for refused in (
        account.send("GET", url),
        account.send("GET", f"{base}?restype=container&comp=list&{signature}"),
        account.send("GET", f"{base}?restype=container&{signature}"),
        account.send("DELETE", url),
        account.send("DELETE", f"{base}?restype=container&{signature}"),
    ):
        assert refused == (403, "AuthorizationPermissionMismatch")
    elsewhere = url.replace(container, other)
    assert account.send("PUT", elsewhere, b"x", **PUT) == (403, "AuthorizationFailure")
    account_url = f"{base.rpartition('/')[0]}/?comp=list&{signature}"
    assert account.send("GET", account_url) == (403, "AuthorizationFailure")
    account.blobs.delete_container(other)


def test_create_signature_does_not_overwrite(account, container):
    url = account.sign(container, "a", permission="c")
    assert account.send("PUT", url, b"first", **PUT)[0] == 201
    assert account.send("PUT", url, b"second", **PUT) == (403, "AuthorizationPermissionMismatch")
    assert read_blob(account.blobs, container, "a") == b"first"


@pytest.mark.parametrize(
    ("starts_in", "expires_in", "is_valid"), [(None, 60, True), (-60, 60, True), (None, -60, False), (60, 120, False)]
)
def test_signature_is_valid_between_its_times(account, container, starts_in, expires_in, is_valid):
    account.blobs.upload_bytes(container, "a", b"content")
    for blob in ("a", None):
        times = {"starts_in": starts_in, "expires_in": expires_in}
        base, _, signature = account.sign(container, blob, permission="r", **times).partition("?")
        expected = (200, b"content") if is_valid else (403, "AuthorizationFailure")
        assert account.send("GET", f"{base if blob else f'{base}/a'}?{signature}") == expected


@pytest.mark.parametrize("parameter", ["sp", "st", "se", "sv", "sr", "sig", "spr"])
def test_tampered_signature_is_rejected(account, container, parameter):
    account.blobs.upload_bytes(container, "a", b"content")
    base, _, signature = account.sign(container, "a", permission="r", starts_in=-60).partition("?")
    values = {name: value for name, (value,) in parse_qs(signature).items()}
    later = (now() + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    earlier = (now() - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    tampered = {"sp": "rw", "st": earlier, "se": later, "sv": "2021-02-12", "sr": "c", "sig": "AAAA", "spr": "http"}
    url = f"{base}?{urlencode(values | {parameter: tampered[parameter]})}"
    assert account.send("GET", url) == (403, "AuthorizationFailure")
    del values["sig"]
    assert account.send("GET", f"{base}?{urlencode(values)}") == (403, "AuthorizationFailure")


def test_node_fetches_resource_files(account, container, tmp_path):
    for name in ("in/a b", "in/ü", "other"):
        account.blobs.upload_bytes(container, name, name.encode())
    files = [
        {"httpUrl": account.sign(container, "other", permission="r"), "filePath": "one"},
        {"storageContainerUrl": account.sign(container, permission="rl"), "blobPrefix": "in/", "filePath": "all"},
    ]
    fetch_resource_files(account.node, files, tmp_path, cancelled=lambda: False)
    fetched = {
        path.relative_to(tmp_path).as_posix(): path.read_text() for path in tmp_path.rglob("*") if path.is_file()
    }
    assert fetched == {"one": "other", "all/in/a b": "in/a b", "all/in/ü": "in/ü"}


@pytest.mark.parametrize(
    ("blob", "permission", "code"), [("missing", "r", "BlobNotFound"), ("a", "w", "BlobAccessDenied")]
)
def test_node_reports_failed_downloads(account, container, tmp_path, blob, permission, code):
    account.blobs.upload_bytes(container, "a", b"content")
    files = [{"httpUrl": account.sign(container, blob, permission=permission), "filePath": "a"}]
    with pytest.raises(TransferError) as caught:
        fetch_resource_files(account.node, files, tmp_path, cancelled=lambda: False)
    assert caught.value.failure["code"] == code


def test_node_sends_output_files(account, container, tmp_path):
    directory = tmp_path / "wd"
    directory.mkdir()
    (directory / "a.json").write_bytes(b"content")
    (directory / "empty.json").touch()

    def send(url):
        files = [{"filePattern": "*.json", "destination": {"container": {"path": "out", "containerUrl": url}}}]
        send_output_files(account.node, files, directory, {}, succeeded=True)

    url = account.blobs.write_url(container, now() + timedelta(hours=1))
    send(url)
    send(url)
    assert list_blobs(account, container) == (200, ["out/a.json", "out/empty.json"])
    assert read_blob(account.blobs, container, "out/a.json") == b"content"
    missing = account.sign(f"{container}-x", permission="cw")
    for refused, code in (
        (account.sign(container, permission="r"), "FileUploadAccessDenied"),
        (missing, "FileUploadContainerNotFound"),
    ):
        with pytest.raises(TransferError) as caught:
            send(refused)
        assert caught.value.failure["code"] == code


READING = frozenset({"properties", "containers", "get", "head", "list", "signed"})


def choose_operation(rng, prefix):
    """Return the kind of a random operation, and a function that performs it on an account."""
    # Azurite treats a blob with only uncommitted blocks as existing and can delete it; Azure does not.
    staged, unstaged = "a/blocks", rng.choice(["a", "ü ?", "z+%"])
    container, blob = f"{prefix}-{rng.randrange(3)}", rng.choice([staged, unstaged, unstaged])
    content = rng.randbytes(rng.choice([0, 1, 10]))
    blocks = [BlobBlock(rng.choice("123")) for _ in range(rng.randrange(4))]
    # No content ends at one of these offsets, because the accounts differ for a range that starts at the end.
    span = rng.choice([{}, {"offset": 0}, {"offset": 4, "length": 4}, {"offset": 9}, {"offset": 25, "length": 1}])
    query = rng.choice([{}, {"prefix": "a"}, {"maxresults": "1"}, {"maxresults": "2", "marker": "a"}])
    method = rng.choice(["GET", "HEAD", "PUT", "DELETE"])
    scope, expires_in = rng.choice([unstaged, None]), rng.choice([60, 60, 60, -60])
    permission, number = rng.choice(["r", "w", "c", "cw", "rl", "d", "racwdl"]), str(rng.random())

    def client(account, name=blob):
        return account.blobs._service.get_blob_client(container, name)

    def send_signed(account):
        signed = account.sign(container, scope, permission=permission, expires_in=expires_in)
        base, _, signature = signed.partition("?")
        url = f"{base if scope else f'{base}/{quote(unstaged)}'}?{signature}"
        return account.send(method, url, content if method == "PUT" else b"", **(PUT if method == "PUT" else {}))

    operations = {
        "create": lambda account: account.blobs.create_container(container, {"number": number}),
        "delete": lambda account: account.blobs._service.delete_container(container),
        "properties": lambda account: account.blobs.get_container_metadata(container),
        "containers": lambda account: {
            name: each.metadata for name, each in account.blobs.list_containers(prefix).items()
        },
        "put": lambda account: account.blobs.upload_bytes(container, blob, content),
        "add": lambda account: client(account, unstaged).upload_blob(content),
        "stage": lambda account: client(account, staged).stage_block(blocks[0].id if blocks else "0", content),
        "commit": lambda account: client(account, staged).commit_block_list(blocks),
        "get": lambda account: client(account).download_blob(**span).readall(),
        "head": lambda account: client(account).exists() and client(account).get_blob_properties().size,
        "remove": lambda account: client(account, unstaged).delete_blob(),
        "list": lambda account: list_blobs(account, container, **query),
        "signed": send_signed,
    }
    # Operations that create data are frequent, so that there is something to read.
    weights = {"create": 3, "put": 6, "stage": 3, "commit": 3, "get": 6, "list": 4, "signed": 12}
    kind = rng.choices(list(operations), [weights.get(name, 1) for name in operations])[0]
    return kind, operations[kind]


def outcome(kind, operation, account):
    """Return the error, or the result of a read operation."""
    try:
        result = operation(account)
    except HttpResponseError as error:
        return error.status_code, error.error_code
    except ServiceError as error:
        return type(error), error.code
    return result if kind in READING else None


@pytest.mark.parametrize("seed", [1])
def test_random_operations_have_equal_outcomes(request, monkeypatch, seed):
    azurite, memory = (open_account(kind, request, monkeypatch) for kind in ("azurite", "memory"))
    rng, prefix = random.Random(seed), f"same-{uuid.uuid4().hex[:8]}"
    outcomes = set()
    for number in range(200):
        kind, operation = choose_operation(rng, prefix)
        expected = outcome(kind, operation, azurite)
        assert (number, kind, outcome(kind, operation, memory)) == (number, kind, expected)
        outcomes.add((kind, str(expected)))
    assert len(outcomes) > 30, "the random operations are too similar"


def test_memory_account_is_deterministic():
    def answers():
        storage = MemoryStorage(STORAGE_ACCOUNT, STORAGE_KEY, lambda: datetime(2026, 1, 1, tzinfo=timezone.utc))
        base, key = f"{storage.endpoint}/abc", {"authorization": f"SharedKey {STORAGE_ACCOUNT}:x"}
        for method, url in (("PUT", f"{base}?restype=container"), ("PUT", f"{base}/a"), ("GET", f"{base}/a")):
            yield storage.answer(Request(method, url, {**key, **PUT}, b"content"))

    assert list(answers()) == list(answers())
