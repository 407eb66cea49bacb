"""Outputs that stay in Storage: contract tests for Azurite and for the in-memory account of the simulation."""

from __future__ import annotations

import hashlib
import pickle
import random
from io import BytesIO

import pytest
from run_reports import PROVENANCE
from tests_support import new_container, read_blob

from simulation.test_storage_contract import open_account
from tasks.azure import accounts, blob
from tasks.azure.blob_outputs import BlobOutput, open_blob
from tasks.errors import CONDITION_NOT_MET, ServiceError
from tasks.model.files import Source
from tasks.model.outputs import START_BYTES, Output, Outputs, Scratch
from tasks.model.urls import Place
from tasks.model.verdict import StoredResult
from tasks.report.folders import BlobFolder
from tasks.workload.results_store import ContainerStore, FolderStore
from tasks.workload.source_results import SourceResult

CONTENT = random.Random(1).randbytes(blob.DOWNLOAD_BYTES + 1000)
SOURCE = Source(workload="a" * 64, container="account/container", folder="logs/")


@pytest.fixture(params=["azurite", "memory"])
def blobs(request, monkeypatch):
    account = open_account(request.param, request, monkeypatch).blobs
    monkeypatch.setattr(accounts, "blob_account", lambda: account)
    return account


@pytest.fixture
def container(blobs):
    with new_container(blobs, "copies") as name:
        yield name


@pytest.fixture
def output(blobs, container):
    blobs.upload_archive(container, "task/a b.csv", BytesIO(CONTENT))
    return open_blob(blobs, container, "task/a b.csv", Scratch())


@pytest.fixture(params=["at once", "in background"])
def way(request, monkeypatch):
    """How blobs are copied."""
    if request.param == "in background":
        monkeypatch.setattr(blob, "MAX_SYNC_COPY_BYTES", 0)


def code_of(action):
    with pytest.raises(ServiceError) as caught:
        action()
    return caught.value.code


def test_remote_output_reads_like_local_one(output):
    local = Output.of(CONTENT)
    assert isinstance(output, BlobOutput)
    assert not isinstance(local, BlobOutput)
    for each in (output, pickle.loads(pickle.dumps(output))):
        assert each.size_bytes == len(CONTENT)
        for limit in (None, 0, 5, START_BYTES + 1, len(CONTENT) + 1):
            assert each.read(limit) == local.read(limit)
        part = each.part(10, len(CONTENT) - 20)
        assert (part.part(5, 10).read(), part.part(5, 0).read(), part.read(3)) == (CONTENT[15:25], b"", CONTENT[10:13])
        assert (each.tail(7), each.tail(0)) == (CONTENT[-7:], b"")
        with each.open() as file:
            file.seek(-100, 2)
            assert file.read() == CONTENT[-100:]
        with pytest.raises(ValueError, match="not within"):
            each.part(1, len(CONTENT))
        assert each == local
        assert hash(each) == hash(local)


@pytest.mark.parametrize("size", [0, START_BYTES])
def test_small_blobs_are_downloaded(blobs, container, size):
    blobs.upload_bytes(container, "a", CONTENT[:size])
    found = open_blob(blobs, container, "a", Scratch())
    assert not isinstance(found, BlobOutput)
    assert found.read() == CONTENT[:size]


def test_changed_blob_is_not_read(blobs, container, output):
    blobs.upload_archive(container, output.blob, BytesIO(CONTENT[::-1]))
    assert code_of(output.read) == CONDITION_NOT_MET
    assert output.read(START_BYTES) == CONTENT[:START_BYTES]
    assert code_of(lambda: open_blob(blobs, container, output.blob, Scratch(), etag=output.etag)) == (CONDITION_NOT_MET)


def test_copy_has_content_and_says_of_what(blobs, container, output, way):
    copy = output.copy_to(blobs, container, "näme/100%25?.csv")
    assert read_blob(blobs, container, "näme/100%25?.csv") == CONTENT
    assert copy == output
    [listed] = blobs.list_blobs(container, "n")
    assert (listed.copied, f'"{listed.etag}"') == (output.version, copy.etag)
    assert copy.version != output.version
    client = blobs._service.get_blob_client(container, "näme/100%25?.csv")
    assert client.get_blob_properties().content_settings.content_type == "text/csv"


def test_copy_keeps_known_hash(blobs, container, way):
    md5 = hashlib.md5(CONTENT)
    blobs.upload_document(container, "a", BytesIO(CONTENT), md5.digest())
    for name in ("b", "b.csv"):
        assert open_blob(blobs, container, "a", Scratch()).copy_to(blobs, container, name).md5 == md5.hexdigest()
    assert {each.md5 for each in blobs.list_blobs(container)} == {md5.hexdigest()}


def test_changed_or_missing_source_is_not_copied(blobs, container, output, way):
    blobs.upload_archive(container, output.blob, BytesIO(CONTENT[::-1]))
    # Azure has the first code, and Azurite the second.
    changed = {"SourceConditionNotMet", CONDITION_NOT_MET}
    assert code_of(lambda: output.copy_to(blobs, container, "copy")) in changed
    blobs.delete_blob(container, output.blob)
    assert code_of(lambda: output.copy_to(blobs, container, "copy")) in {"BlobNotFound", "CannotVerifyCopySource"}
    assert list(blobs.list_blobs(container)) == []


def test_folder_copies_each_content_once(blobs, container, output):
    folder = BlobFolder(blobs, Place("", container, "out"), "The output folder")
    folder.write("a.csv", output)
    [first] = blobs.list_blobs(container, "out/")
    for again in (folder, BlobFolder(blobs, Place("", container, "out"), "The output folder")):
        again.write("a.csv", output)
        assert list(blobs.list_blobs(container, "out/")) == [first]
    # Something else has replaced the copy.
    blobs.upload_bytes(container, "out/a.csv", b"other")
    BlobFolder(blobs, Place("", container, "out"), "The output folder").write("a.csv", output)
    assert read_blob(blobs, container, "out/a.csv") == CONTENT
    blobs.upload_document(container, "known", BytesIO(CONTENT), hashlib.md5(CONTENT).digest())
    blobs.upload_document(container, "out/known", BytesIO(CONTENT), hashlib.md5(CONTENT).digest())
    before = blobs.read(container, "out/known")
    folder = BlobFolder(blobs, Place("", container, "out"), "The output folder")
    folder.write("known", open_blob(blobs, container, "known", Scratch()))
    assert blobs.read(container, "out/known") == before


@pytest.fixture
def warnings():
    return []


@pytest.fixture
def store(blobs, container, warnings):
    return ContainerStore(blobs, container, warnings.append, "store/")


def put(store, output, kind):
    """Store a result under the key "key", as of a file or as of a blob, and return what the store returns."""
    result = StoredResult(outputs=Outputs({"a.csv": output, "small": Output.of(b"1")}), provenance=PROVENANCE)
    if kind == "file":
        return store.put("key", result)
    return store.add(SOURCE, {"key": SourceResult(blob="logs/a", result=result)})["key"]


def get(store, kind):
    return store.get("key") if kind == "file" else store.find(SOURCE, ["key"]).get("key")


@pytest.mark.parametrize("kind", ["file", "blob"])
def test_store_keeps_copies_of_remote_outputs(blobs, container, store, warnings, output, kind):
    results = [put(store, output, kind), put(store, output, kind)]
    blobs.delete_blob(container, output.blob)
    for result in (*results, get(store, kind)):
        assert isinstance(result.outputs.parts["a.csv"], BlobOutput)
        assert dict(result.outputs) == {"a.csv": CONTENT, "small": b"1"}
    assert warnings == []


@pytest.mark.parametrize("kind", ["file", "blob"])
@pytest.mark.parametrize("change", ["changed", "deleted"])
def test_lost_copy_is_a_damaged_entry(blobs, container, store, warnings, output, kind, change):
    copy = put(store, output, kind).outputs.parts["a.csv"]
    blobs.delete_blob(container, copy.blob)
    if change == "changed":
        blobs.upload_archive(container, copy.blob, BytesIO(CONTENT))
    assert get(store, kind) is None
    [warning] = warnings
    assert "an entry is damaged" in warning


def test_missing_source_costs_only_a_warning(blobs, container, store, warnings, output):
    blobs.delete_blob(container, output.blob)
    assert put(store, output, "file").outputs.parts["a.csv"] is output
    assert "Some results cannot be stored" in warnings[0]


def test_store_in_a_folder_has_contents(tmp_path, output):
    store = FolderStore(tmp_path, pytest.fail)
    put(store, output, "file")
    found = get(store, "file").outputs
    assert not isinstance(found.parts["a.csv"], BlobOutput)
    assert found["a.csv"] == CONTENT
