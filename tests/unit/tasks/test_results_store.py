"""Stored results: a store that fails, or that was changed, costs time but no result."""

from __future__ import annotations

import json
import resource
from contextlib import contextmanager
from dataclasses import replace

import pytest
from run_reports import PROVENANCE, result_of

from tasks.errors import ServiceError
from tasks.model.files import Source
from tasks.model.outputs import Outputs
from tasks.model.verdict import StoredResult
from tasks.workload.result_documents import MAX_INLINE_BYTES, parse_document, to_bytes
from tasks.workload.result_files import ResultFiles
from tasks.workload.results_store import FolderStore, ResultsStore
from tasks.workload.source_results import SourceResult

RESULT = result_of("0" * 64, [("one", 1)])
LARGE = StoredResult(
    outputs=Outputs.of({"large": b"x" * (MAX_INLINE_BYTES + 1), "small": b"\xff"}), provenance=PROVENANCE
)

SOURCE = Source(workload="a" * 64, container="account/container", folder="logs/")


@pytest.fixture
def warnings():
    return []


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def store(folder, warnings):
    return FolderStore(folder, warnings.append)


def test_missing_result_is_no_failure(store, warnings):
    assert store.get("key") is None
    assert warnings == []


def test_stored_result_keeps_hash_of_input(store, folder):
    result = replace(RESULT, sha256="1" * 64)
    store.put("key", result)
    assert store.get("key") == result


def test_document_without_hash_is_read(store, folder):
    """Older versions did not store the hash of the input."""
    store.put("key", RESULT)
    document = parse_document((folder / "key.json").read_bytes())
    del document["input_sha256"]
    (folder / "key.json").write_bytes(to_bytes(document))
    assert store.get("key") == RESULT


def test_missing_large_output_is_reported(store, folder, warnings):
    store.put("key", LARGE)
    (folder / "key.large").unlink()
    assert store.get("key") is None
    assert "an entry is damaged" in warnings[0]


def test_large_outputs_are_stored_beside_entry(store, folder, warnings):
    store.put("key", LARGE)
    assert store.get("key") == LARGE
    assert len((folder / "key.json").read_bytes()) < MAX_INLINE_BYTES
    (folder / "key.large").write_bytes(b"y" * (MAX_INLINE_BYTES + 1))
    assert store.get("key") is None
    assert "an entry is damaged" in warnings[0]


def change_count(path):
    path.write_text(path.read_text().replace('\\"one\\", 1', '\\"one\\", 2'))


def add_hostile_word(path):
    path.write_text(path.read_text().replace("one", "\\\\u001b[31m"))


def change_provenance(path):
    document = json.loads(path.read_text())
    document["provenance"]["node_id"] = "other"
    path.write_text(json.dumps(document))


def remove_checksum(path):
    document = json.loads(path.read_text())
    del document["sha256"]
    path.write_text(json.dumps(document))


def replace_by_folder(path):
    path.unlink()
    path.mkdir()


def replace_by_entry_of_other_key(path):
    FolderStore(path.parent).put("other", RESULT)
    (path.parent / "other.json").replace(path)


def fill(path):
    with path.open("wb") as file:
        file.truncate(1 << 30)


@pytest.mark.parametrize(
    "damage",
    [
        change_count,
        add_hostile_word,
        change_provenance,
        remove_checksum,
        replace_by_folder,
        replace_by_entry_of_other_key,
        fill,
    ],
)
def test_damaged_entry_is_not_used_but_reported(store, folder, warnings, damage):
    store.put("key", RESULT)
    before = (folder / "key.json").read_bytes()
    damage(folder / "key.json")
    assert (
        not (folder / "key.json").is_file()
        or (folder / "key.json").stat().st_size != len(before)
        or ((folder / "key.json").read_bytes() != before)
    )
    assert store.get("key") is None
    assert len(warnings) == 1
    assert warnings[0].startswith("Some stored results cannot be read, so their files are processed again: ")


def test_store_that_is_no_folder_is_reported_once(folder, store, warnings):
    folder.write_text("")
    for key in ("a", "b"):
        assert store.get(key) is None
        store.put(key, RESULT)
    assert [message.partition(":")[0] for message in warnings] == [
        "Some stored results cannot be read, so their files are processed again",
        "Some results cannot be stored, so the next run processes their files again",
    ]
    assert "(" not in warnings[0]


@contextmanager
def no_space():
    """Let every write to a file fail."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_store_is_reported_once(store, warnings):
    with no_space():
        for key in ("a", "b"):
            store.put(key, RESULT)
    assert len(warnings) == 1
    assert "File too large" in warnings[0]
    assert store.get("a") is None


class FailingFiles(ResultFiles):
    """Files whose requests fail, or take long."""

    def __init__(self, fail):
        self.requests = 0
        self._fail = fail

    def read(self, name):
        self.requests += 1
        self._fail()
        return iter([b"{}"])

    def write(self, name, blocks):
        self.requests += 1
        self._fail()

    def list_files(self, folder):
        self.requests += 1
        self._fail()
        return iter([])

    def delete(self, name):
        self.requests += 1
        self._fail()


def unavailable():
    raise ServiceError("Storage did not answer.", service="Storage", operation="x", transient=True)


def unexpected():
    raise KeyError("x")


def test_unavailable_store_is_asked_once(warnings):
    files = FailingFiles(unavailable)
    store = ResultsStore(files, warnings.append)
    assert store.get("a") is store.get("b") is None
    store.put("a", RESULT)
    assert store.find(SOURCE, ["a"]) == {}
    store.add(SOURCE, {"a": SourceResult(blob="a", result=RESULT)})
    assert files.requests == 1
    assert len(warnings) == 1


def test_unexpected_error_of_store_fails_nothing(warnings):
    store = ResultsStore(FailingFiles(unexpected), warnings.append)
    assert store.get("a") is None
    assert store.find(SOURCE, ["a"]) == {}
    store.put("a", RESULT)
    store.add(SOURCE, {"a": SourceResult(blob="a", result=RESULT)})
    assert len(warnings) == 2


def test_slow_store_is_not_used_any_longer(warnings, monkeypatch):
    now = [0.0]

    def wait():
        now[0] += 21

    monkeypatch.setattr("tasks.workload.results_store.time.monotonic", lambda: now[0])
    files = FailingFiles(wait)
    store = ResultsStore(files, warnings.append)
    for _ in range(5):
        store.put("a", RESULT)
    assert files.requests == 3
    assert warnings == ["The results store is slow. This run does not use it any longer."]
