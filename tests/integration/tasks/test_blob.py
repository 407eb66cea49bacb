"""The storage adapter against Azurite, with a key and with an identity: signed URLs, uploads and downloads."""

from __future__ import annotations

import hashlib
import tempfile
import tracemalloc
import urllib.error
import urllib.request
import uuid
from datetime import datetime, timedelta, timezone
from urllib.parse import parse_qs, urlsplit

import pytest
from tests_support import read_blob

from tasks.azure.accounts import blob_account
from tasks.azure.blob import BLOCK_BYTES, MAX_CLOCK_SKEW
from tasks.errors import AlreadyExistsError, NotFoundError
from tasks.model.outputs import Scratch

SOON = timedelta(minutes=5)


@pytest.fixture(
    params=[
        pytest.param("azure_settings", id="key"),
        pytest.param("identity_settings", id="identity", marks=pytest.mark.xdist_group("secured_azure")),
    ]
)
def blobs(request):
    request.getfixturevalue(request.param)
    return blob_account()


@pytest.fixture
def container(blobs):
    name = f"test-{uuid.uuid4().hex}"
    blobs.create_container(name, {"owner": "test"})
    return name


def send(url, method="GET", data=None, **headers):
    """Send a request with only the URL's signature, and return the status and the body."""
    request = urllib.request.Request(url, data, {"x-ms-blob-type": "BlockBlob", **headers}, method=method)
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def now():
    return datetime.now(timezone.utc)


def test_read_url_reads_its_blob(blobs, container):
    blobs.upload_bytes(container, "a", b"content")
    assert send(blobs.read_url(container, "a", now() + SOON)) == (200, b"content")


def test_read_url_cannot_write_or_delete(blobs, container):
    blobs.upload_bytes(container, "a", b"content")
    url = blobs.read_url(container, "a", now() + SOON)
    assert send(url, "PUT", b"changed")[0] == 403
    assert send(url, "DELETE")[0] == 403
    assert read_blob(blobs, container, "a") == b"content"


def test_read_url_cannot_read_other_blob(blobs, container):
    blobs.upload_bytes(container, "a", b"content")
    blobs.upload_bytes(container, "b", b"secret")
    assert send(blobs.read_url(container, "a", now() + SOON).replace("/a?", "/b?"))[0] == 403


def test_read_url_expires(blobs, container):
    blobs.upload_bytes(container, "a", b"content")
    assert send(blobs.read_url(container, "a", now() - SOON))[0] == 403


def test_write_url_creates_and_replaces_blobs(blobs, container):
    base, _, signature = blobs.write_url(container, now() + SOON).partition("?")
    for content in (b"first", b"second"):
        assert send(f"{base}/folder/a?{signature}", "PUT", content)[0] == 201
    assert read_blob(blobs, container, "folder/a") == b"second"


def test_write_url_cannot_read_list_or_delete(blobs, container):
    blobs.upload_bytes(container, "a", b"content")
    base, _, signature = blobs.write_url(container, now() + SOON).partition("?")
    assert send(f"{base}/a?{signature}")[0] == 403
    assert send(f"{base}?restype=container&comp=list&{signature}")[0] == 403
    assert send(f"{base}/a?{signature}", "DELETE")[0] == 403
    assert send(f"{base}?restype=container&{signature}", "DELETE")[0] == 403


def test_write_url_cannot_reach_other_container(blobs, container):
    other = f"test-{uuid.uuid4().hex}"
    blobs.create_container(other, {})
    base, _, signature = blobs.write_url(container, now() + SOON).partition("?")
    assert send(f"{base.replace(container, other)}/a?{signature}", "PUT", b"x")[0] == 403


def text_file(tmp_path, size):
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    path = tmp_path / "file"
    path.write_bytes(content)
    return path, content, hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES, 2 * BLOCK_BYTES + 1])
def test_file_is_uploaded_under_its_hash(blobs, container, tmp_path, size):
    path, content, sha256 = text_file(tmp_path, size)
    assert blobs.upload_file(container, path, size, sha256)
    assert read_blob(blobs, container, sha256) == content


@pytest.mark.parametrize("size", [3, BLOCK_BYTES, BLOCK_BYTES + 1])
@pytest.mark.parametrize("change", [b"more", b""])
def test_changed_file_creates_no_blob(blobs, container, tmp_path, size, change):
    path, content, sha256 = text_file(tmp_path, size)
    path.write_bytes(content + change if change else content[:-1] + b"?")
    assert not blobs.upload_file(container, path, size, sha256)
    with pytest.raises(NotFoundError):
        read_blob(blobs, container, sha256)


def test_existing_long_file_is_not_uploaded_again(blobs, container, tmp_path):
    path, content, sha256 = text_file(tmp_path, BLOCK_BYTES + 1)
    assert blobs.upload_file(container, path, len(content), sha256)
    path.write_bytes(b"not even read")
    assert blobs.upload_file(container, path, len(content), sha256)
    assert read_blob(blobs, container, sha256) == content


def test_download_reads_only_last_bytes(blobs, container):
    blobs.upload_bytes(container, "log", b"0123456789")
    assert blobs.download_tail(container, "log", 4) == b"6789"
    assert blobs.download_tail(container, "log", 100) == b"0123456789"
    blobs.upload_bytes(container, "empty", b"")
    assert blobs.download_tail(container, "empty", 4) == b""


def test_large_blob_is_streamed(azure_settings):
    """More than the SDK reads with one request, which used to fail; the memory does not depend on the size."""
    blobs = blob_account()
    container = f"test-{uuid.uuid4().hex}"
    blobs.create_container(container, {})
    block = bytes(range(256)) * 4096
    with tempfile.TemporaryFile() as file:
        file.writelines([block] * 48)
        file.seek(0)
        blobs.upload_archive(container, "large", file)
    scratch = Scratch()
    tracemalloc.start()
    output = scratch.add(blobs.download(container, "large"))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert output.size_bytes == 48 * len(block)
    assert all(found == block for found in output.blocks())
    assert peak_bytes < 4 * BLOCK_BYTES


def test_conflict_and_missing_blob_raise_different_errors(blobs, container):
    with pytest.raises(AlreadyExistsError):
        blobs.create_container(container, {})
    with pytest.raises(NotFoundError):
        read_blob(blobs, container, "missing")
    with pytest.raises(NotFoundError):
        blobs.get_container_metadata(f"test-{uuid.uuid4().hex}")


def test_containers_are_listed_by_prefix_with_metadata(blobs, container):
    assert {name: found.metadata for name, found in blobs.list_containers(container[:20]).items()} == {
        container: {"owner": "test"}
    }


def test_deleting_container_twice_succeeds(blobs, container):
    blobs.delete_container(container)
    blobs.delete_container(container)
    assert blobs.list_containers(container) == {}


def key_period(url):
    """Return the start and the end of the user delegation key of a signed URL."""
    query = parse_qs(urlsplit(url).query)
    return tuple(datetime.fromisoformat(query[name][0].replace("Z", "+00:00")) for name in ("skt", "ske"))


def test_signing_key_allows_clock_skew_and_seven_days(identity_settings):
    account = blob_account()
    for life in (SOON, timedelta(days=6, hours=23)):
        start, end = key_period(account.read_url("c", "b", now() + life))
        assert abs(now() - MAX_CLOCK_SKEW - start) < SOON
        assert now() + life <= end + timedelta(seconds=1)
        assert end - start <= timedelta(days=7)


def test_signing_key_is_reused_until_too_short(identity_settings):
    account = blob_account()
    first = key_period(account.read_url("c", "b", now() + SOON))
    assert key_period(account.read_url("c", "b", now() + SOON)) == first
    later = now() + timedelta(hours=1)
    assert key_period(account.write_url("c", later))[1] >= later - timedelta(seconds=1)
    assert key_period(account.write_url("c", later)) != first
