"""Contract tests for the results of blobs in a folder, in the in-memory storage account, and in Azurite."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import threading
import uuid
from dataclasses import replace

import pytest
from run_reports import PROVENANCE, result_of

from simulation.storage import MemoryStorage
from simulation.test_storage_contract import open_account
from tasks.model.files import Source
from tasks.model.outputs import Outputs
from tasks.model.verdict import StoredResult
from tasks.workload import source_results
from tasks.workload.result_documents import MAX_INLINE_BYTES
from tasks.workload.result_files import ContainerFiles, FolderFiles, ResultFiles
from tasks.workload.results_store import ResultsStore
from tasks.workload.source_results import MAX_SEGMENT_BYTES, MAX_SMALL_SEGMENTS, SourceResult

SOURCE = Source(workload=hashlib.sha256(b"workload").hexdigest(), container="account/container", folder="logs/2026/")
LARGE = Outputs.of({"large": b"x" * (MAX_INLINE_BYTES + 1), "binary": b"\xff\n", "text": "é\n".encode()})
ODD_FOLDERS = ["", "/", "//", "../", "a/../", "./", "100%/", "%2F/", "é ü/日本/", "a b?#&/", "a\\b/", "x" * 1023 + "/"]


class Killed(BaseException):
    """The end of a process."""


class WatchedFiles(ResultFiles):
    """Files whose requests are recorded. `before` is called before each request and may act as another process."""

    def __init__(self, files, before=lambda _: None):
        self._files = files
        self._before = before
        self.requests = []

    def _record(self, operation, name):
        self.requests.append((operation, name))
        self._before(operation)

    def read(self, name):
        self._record("read", name)
        return self._files.read(name)

    def write(self, name, blocks):
        self._record("write", name)
        self._files.write(name, blocks)

    def list_files(self, folder):
        self._record("list", folder)
        return self._files.list_files(folder)

    def delete(self, name):
        self._record("delete", name)
        self._files.delete(name)

    def count(self, operation):
        return [each for each, _ in self.requests].count(operation)


@pytest.fixture
def folder(tmp_path):
    return FolderFiles(tmp_path)


@pytest.fixture
def container(request, monkeypatch):
    """Return a function that creates a container in Azurite or in memory."""

    def create(kind):
        account = open_account(kind, request, monkeypatch).blobs
        name = f"results-{uuid.uuid4().hex}"
        account.create_container(name, {})
        request.addfinalizer(lambda: account.delete_container(name))
        return ContainerFiles(account, name, "some/prefix/")

    return create


@pytest.fixture(params=["folder", "memory", "azurite"])
def files(request):
    if request.param == "folder":
        return request.getfixturevalue("folder")
    return request.getfixturevalue("container")(request.param)


def no_warning(message):
    pytest.fail(message)


def item(blob, version=1):
    """Return a result with its key."""
    digest = hashlib.sha256(f"{blob} {version}".encode()).hexdigest()
    return f"{blob} {version}", SourceResult(blob=blob, result=replace(result_of(digest, [("a", 1)]), sha256=digest))


def items(*blobs, version=1):
    return dict(item(blob, version) for blob in blobs)


def add(files, *blobs, version=1, source=SOURCE):
    results = items(*blobs, version=version)
    ResultsStore(files, no_warning).add(source, results)
    return expected(results)


def expected(results):
    return {key: each.result for key, each in results.items()}


def find(files, keys, *, source=SOURCE, warn=no_warning, **options):
    return ResultsStore(files, warn).find(source, keys, **options)


def segments(files):
    return sorted(file.name for file in files.list_files("sources/"))


def content_of(files, name):
    return b"".join(files.read(name))


def test_added_results_are_found(files):
    results = {
        **items("a", "b"),
        "large": SourceResult(blob="c", result=StoredResult(outputs=LARGE, provenance=PROVENANCE, sha256="f" * 64)),
    }
    ResultsStore(files, no_warning).add(SOURCE, results)
    assert find(files, [*results, "other"]) == expected(results)
    assert find(files, []) == {}
    assert len(segments(files)) == 1


def test_results_of_other_sources_are_separate(files):
    added = add(files, "a")
    for other in ({"workload": "b" * 64}, {"container": "account/other"}, {"folder": "logs/2027/"}):
        assert find(files, added, source=replace(SOURCE, **other)) == {}
    assert find(files, added) == added


@pytest.mark.parametrize(
    ("folder_", "is_read"), [("", True), ("logs/", True), ("logs/2026/01/", True), ("log/", False)]
)
def test_related_folders_are_read(files, folder_, is_read):
    added = add(files, "a")
    watched = WatchedFiles(files)
    assert find(watched, added, source=replace(SOURCE, folder=folder_)) == (added if is_read else {})
    assert (watched.count("list"), watched.count("read")) == (1, int(is_read))


def test_odd_folders_keep_results(files):
    for number, name in enumerate(ODD_FOLDERS):
        source = replace(SOURCE, folder=name)
        added = add(files, str(number), source=source)
        assert find(files, added, source=source) == added
    assert len(segments(files)) == len(ODD_FOLDERS)


def test_long_folders_are_searched_together(files):
    first, second = (replace(SOURCE, folder="x" * 1000 + end) for end in ("/a/", "/b/"))
    added = {**add(files, "a", source=first), **add(files, "b", source=second)}
    assert find(files, added, source=first) == added


def test_concurrent_writers_lose_nothing(files):
    barrier = threading.Barrier(4)
    added = {}

    def write(writer):
        barrier.wait()
        for number in range(5):
            added.update(add(files, f"{writer}/{number}"))

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(added) == 20
    assert find(files, added) == added


def replace_word(content):
    return content.replace(b"file-1 1", b"file-9 1", 1)


def truncate(content):
    return content[: content.index(b"\n") - 5] + content[content.index(b"\n") :]


def prepend_bytes(content):
    return b"\xff\x00[]\n" + content.partition(b"\n")[2]


def prepend_foreign_document(content):
    return b'{"sha256": null}\n{}\n1\n[[[\n' + content.partition(b"\n")[2]


@pytest.mark.parametrize("damage", [replace_word, truncate, prepend_bytes, prepend_foreign_document])
def test_damaged_line_is_reported_and_removed(files, damage):
    added = add(files, "file-1", "file-2")
    [name] = segments(files)
    files.write(name, [damage(content_of(files, name))])
    warnings = []
    rest = {key: result for key, result in added.items() if key == "file-2 1"}
    assert find(files, added, warn=warnings.append, merge=False) == rest
    assert find(files, added, warn=warnings.append) == rest
    assert set(warnings) == {
        "Some stored results cannot be read, so their files are processed again: an entry is damaged."
    }
    assert len(warnings) == 2
    assert find(files, added) == rest
    assert find(files, add(files, "file-1")) == {"file-1 1": added["file-1 1"]}


@pytest.mark.parametrize("content", [b"", b"\n", b"x", bytes(MAX_SEGMENT_BYTES + 1)], ids=len)
def test_damaged_file_does_not_hide_others(files, content):
    added = add(files, "a")
    [name] = segments(files)
    add(files, "b")
    [other] = set(segments(files)) - {name}
    files.write(other, [content])
    warnings = []
    assert find(files, [*added, "b 1"], warn=warnings.append) == added
    assert len(warnings) == (len(content.strip()) > 0)


def test_missing_large_output_costs_its_result(files):
    results = {**items("a"), "large": SourceResult(blob="b", result=StoredResult(outputs=LARGE, provenance=PROVENANCE))}
    ResultsStore(files, no_warning).add(SOURCE, results)
    files.delete("large.large")
    warnings = []
    assert find(files, results, warn=warnings.append) == expected(items("a"))
    assert len(warnings) == 1


def test_foreign_files_are_left_alone(files):
    added = add(files, *"abc")
    parent = segments(files)[0].rpartition("/")[0]
    foreign = [f"{parent}/README.md", f"{parent}/deeper/20260101T000000000000Z-{'0' * 16}.jsonl", f"{parent}.jsonl"]
    for name in foreign:
        files.write(name, [b"mine"])
    for number in range(MAX_SMALL_SEGMENTS + 1):
        added |= add(files, f"d{number}")
    assert find(files, added) == added
    assert len(segments(files)) == len(foreign) + 1
    assert all(content_of(files, name) == b"mine" for name in foreign)


def test_small_files_are_merged(files):
    added = {}
    for number in range(MAX_SMALL_SEGMENTS):
        added |= add(files, str(number))
    assert find(files, added) == added
    assert len(segments(files)) == MAX_SMALL_SEGMENTS
    added |= add(files, "last")
    assert find(files, added, merge=False) == added
    assert len(segments(files)) == MAX_SMALL_SEGMENTS + 1
    assert find(files, added) == added
    assert len(segments(files)) == 1
    assert find(files, added) == added


def test_merge_writes_files_of_limited_size(folder, monkeypatch):
    monkeypatch.setattr(source_results, "SEGMENT_BYTES", 2000)
    added = {}
    for number in range(MAX_SMALL_SEGMENTS + 1):
        added |= add(folder, str(number))
    assert find(folder, added) == added
    sizes = [file.size_bytes for file in folder.list_files("sources/")]
    assert 2 < len(sizes) < MAX_SMALL_SEGMENTS
    assert max(sizes) < 3000


def test_merge_keeps_newest_result_per_blob(files):
    for version in range(1, MAX_SMALL_SEGMENTS + 1):
        add(files, "a", "b", version=version)
    added = {**expected(items("b", version=MAX_SMALL_SEGMENTS)), **add(files, "a", version=99)}
    assert find(files, [*added, "new"]) == added
    [name] = segments(files)
    assert {json.loads(line)["content_key"] for line in content_of(files, name).splitlines()} == set(added)


def test_overwritten_blobs_do_not_fill_store(folder, monkeypatch):
    """Also not if the files are too large to be merged for their number."""
    monkeypatch.setattr(source_results, "SMALL_BYTES", 0)
    for night in range(30):
        assert find(folder, items(*"abc", version=night)) == {}
        added = add(folder, *"abc", version=night)
        assert find(folder, added) == added
    assert len(segments(folder)) <= 3


def test_killed_merge_loses_nothing(files):
    added = {}
    for number in range(MAX_SMALL_SEGMENTS + 1):
        added |= add(files, str(number))

    def kill(operation):
        if operation == "delete":
            raise Killed

    for _ in range(2):
        with pytest.raises(Killed):
            find(WatchedFiles(files, kill), added)
    assert len(segments(files)) == MAX_SMALL_SEGMENTS + 3
    assert find(files, [*added, "new"]) == added
    assert len(segments(files)) == 1
    assert find(files, added) == added


@pytest.mark.parametrize("moment", ["read", "write", "delete"])
def test_concurrent_merge_loses_nothing(files, moment):
    """Another run merges the same files after the listing, before the write, or before the deletions."""
    added = {}
    for number in range(MAX_SMALL_SEGMENTS + 1):
        added |= add(files, str(number))
    others = [lambda: find(files, [*added, "new"])]

    def merge_once(operation):
        if operation == moment and others:
            assert others.pop()() == added

    assert find(WatchedFiles(files, merge_once), [*added, "new"]) == added
    assert others == []
    assert find(files, [*added, "new"]) == added
    assert find(files, added) == added
    assert len(segments(files)) == 1


def test_interrupted_search_merges_nothing(files):
    """Another run moves results that this run has read into a new file, in which they look superfluous."""
    added = {}
    for number in range(MAX_SMALL_SEGMENTS):
        added |= add(files, str(number))
    operations = []

    def merge_before_last_read(operation):
        operations.append(operation)
        if operations.count("read") == MAX_SMALL_SEGMENTS and operation == "read":
            find(files, [*added, *add(files, "last"), "new"])
            assert len(segments(files)) == 1

    assert find(WatchedFiles(files, merge_before_last_read), [*added, "new"]) == added
    assert operations.count("list") == 2
    assert find(files, added) == added


def test_merge_keeps_results_in_use(files):
    """A slow run can add the result of an old version after that of the newest version."""
    added = add(files, "a", version=2)
    add(files, "a", version=1)
    for number in range(MAX_SMALL_SEGMENTS):
        added |= add(files, str(number))
    for _ in range(2):
        assert find(files, [*added, "new"]) == added
    assert len(segments(files)) == 1


def test_endless_merges_end_search(folder):
    """A search does not follow other runs forever."""
    added = add(folder, "a")
    numbers = itertools.count(10)

    def replace_segments(operation):
        if operation == "read":
            for name in segments(folder):
                content = content_of(folder, name)
                folder.delete(name)
                folder.write(f"{name[:-8]}{next(numbers)}.jsonl", [content])

    watched = WatchedFiles(folder, replace_segments)
    assert find(watched, added) == {}
    assert watched.count("list") == 3


def test_night_without_news_needs_few_requests(container, monkeypatch):
    """The first night adds its results in 90 parts, as that of 10,000 blobs does; here, blobs and files are a fifth.

    The second night reads and merges the parts, and the third reads them.
    """
    monkeypatch.setattr(source_results, "SEGMENT_BYTES", source_results.SEGMENT_BYTES // 5)
    monkeypatch.setattr(source_results, "SMALL_BYTES", source_results.SMALL_BYTES // 5)
    requests = []
    answer = MemoryStorage.answer
    monkeypatch.setattr(MemoryStorage, "answer", lambda *call: requests.append(call) or answer(*call))
    files = container("memory")
    blobs = [f"logs/2026/{number:05}.txt" for number in range(2_000)]
    added = {}
    for start in range(0, len(blobs), 22):
        added |= add(files, *blobs[start : start + 22])
    for limit in (333, 20):
        requests.clear()
        assert len(find(files, added)) == len(added)
        assert len(requests) <= limit
    sample = random.Random(1).sample(sorted(added), 20)
    assert find(files, sample) == {key: added[key] for key in sample}


@pytest.mark.parametrize("is_local", [True, False])
def test_local_store_has_results_by_content(folder, is_local):
    key, added = item("a")
    store = ResultsStore(folder, no_warning, is_local=is_local)
    store.add(SOURCE, {key: replace(added, local_key="local")})
    assert store.get("local") == (added.result if is_local else None)


@pytest.mark.parametrize("seed", range(10))
def test_random_histories_keep_newest_results(folder, monkeypatch, seed):
    """Runs add new versions of blobs, search from any folder, and are killed."""
    rng = random.Random(seed)
    monkeypatch.setattr(source_results, "SMALL_BYTES", 3000)
    monkeypatch.setattr(source_results, "SEGMENT_BYTES", 6000)
    monkeypatch.setattr(source_results, "MAX_SMALL_SEGMENTS", 3)
    newest = {}
    folders = ["", "a/", "a/b/", "c/"]

    def kill(_):
        if rng.random() < 0.05:
            raise Killed

    def search(files, source, **options):
        inside = {key: result for blob, (key, result) in newest.items() if blob.startswith(source.folder)}
        assert find(files, [*inside, "new"], source=source, **options) == inside

    for version in range(60):
        source = replace(SOURCE, folder=rng.choice(folders))
        blobs = {f"{source.folder}{rng.choice(['', 'b/', 'x'])}{rng.randrange(4)}" for _ in range(rng.randrange(4))}
        added = add(folder, *blobs, version=version, source=source)
        newest |= {key.rpartition(" ")[0]: (key, result) for key, result in added.items()}
        try:
            search(WatchedFiles(folder, kill), source)
        except Killed:
            search(folder, source, merge=rng.random() < 0.5)
    for name in folders:
        search(folder, replace(SOURCE, folder=name))
    assert len(segments(folder)) < 30
