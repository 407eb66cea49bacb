"""Finding input files in an in-memory storage account."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest
from run_reports import PROVENANCE
from simulation.storage import InProcessSession, MemoryStorage, Request, Response

from localbatch.processes.azurite import STORAGE_ACCOUNT, STORAGE_KEY
from tasks.azure import transport
from tasks.azure.blob import MAX_LISTED_PER_BLOB, BlobAccount
from tasks.azure.blob_inputs import BlobFinder
from tasks.azure.settings import AzureSettings
from tasks.errors import UsageError
from tasks.model.chunks import Chunk
from tasks.model.inputs import LocalFiles, find_inputs
from tasks.model.outputs import Outputs
from tasks.model.run import Containers
from tasks.model.urls import parse_place
from tasks.model.verdict import StoredResult
from tasks.report.output_folder import find_files
from tasks.steps.plan import create_plan
from tasks.steps.stage import stage_chunk
from tasks.workload.base import Workload
from tasks.workload.results_store import ContainerStore, FolderStore
from tasks.workload.source_results import SourceResult

ODD_NAMES = [
    *(
        "a%b.txt",
        "a%20b.txt",
        "a#b.txt",
        "a?b.txt",
        "a+b.txt",
        "a b.txt",
        "a//b.txt",
        "/lead.txt",
        "é日.txt",
        "dot./x.",
    ),
    *("a/../b.txt", "../x", "a/.", "a/./b", "[x].txt", "q'\"<>&.txt", "x" * 1024),
]


@pytest.fixture
def storage():
    return MemoryStorage(STORAGE_ACCOUNT, STORAGE_KEY, lambda: datetime.now(timezone.utc))


@pytest.fixture
def account(storage, monkeypatch):
    monkeypatch.setattr(transport, "Session", lambda: InProcessSession(storage.answer))
    endpoint = storage.endpoint
    account = BlobAccount(
        AzureSettings(storage_endpoint=endpoint, storage_account=STORAGE_ACCOUNT, storage_key=STORAGE_KEY)
    )
    account.create_container("texts", {})
    return account


@pytest.fixture
def put(account, storage):
    """Upload texts. The SDK cannot send all names."""

    def put(*names, content=b"text"):
        headers = {"authorization": f"SharedKey {STORAGE_ACCOUNT}:", "x-ms-blob-type": "BlockBlob"}
        for name in names:
            answer = storage.answer(Request("PUT", account.blob_url("texts", name), headers, content))
            assert answer.status == 201, name

    return put


def find(account, *inputs, **options):
    return find_inputs(LocalFiles(inputs=inputs, **options), (), BlobFinder(account))


def names(account, *inputs, **options):
    return [file.name for file in find(account, *inputs, **options)]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["az://texts/a.txt"], ["a.txt"]),
        (["az://texts/data/b.md"], ["b.md"]),
        (["az://texts/data"], ["b.md", "deep/c.txt", "deep/er/d.txt"]),
        (["az://texts/data/"], ["b.md", "deep/c.txt", "deep/er/d.txt"]),
        (["az://texts"], ["a.txt", "data-2/e.txt", "data/b.md", "data/deep/c.txt", "data/deep/er/d.txt"]),
        (["az://texts/"], ["a.txt", "data-2/e.txt", "data/b.md", "data/deep/c.txt", "data/deep/er/d.txt"]),
        (["az://texts/*"], ["a.txt"]),
        (["az://texts/**/*.txt"], ["a.txt", "data-2/e.txt", "data/deep/c.txt", "data/deep/er/d.txt"]),
        (["az://texts/data/**/*.txt"], ["deep/c.txt", "deep/er/d.txt"]),
        (["az://texts/data*/*.txt"], ["data-2/e.txt"]),
        (["az://texts/d[a]ta/?.md"], ["data/b.md"]),
        (["az://texts/data/b.md", "az://texts/data"], ["b.md", "deep/c.txt", "deep/er/d.txt"]),
    ],
)
def test_blobs_are_named_below_root_of_input(account, put, given, expected):
    put("a.txt", "data/b.md", "data/deep/c.txt", "data/deep/er/d.txt", "data-2/e.txt")
    assert names(account, *given) == expected
    urls = [account.endpoint + "/" + each.removeprefix("az://").replace("?", "[b]") for each in given]
    assert names(account, *urls) == expected


def test_root_and_exclude_apply_to_blobs(account, put):
    put("a.txt", "data/b.txt")
    Path("a.txt").write_text("on this machine")
    assert names(account, "az://texts/data/*", roots=["az://texts"]) == ["data/b.txt"]
    assert names(account, "az://texts/**", roots=["az://"]) == ["texts/a.txt", "texts/data/b.txt"]
    assert names(account, "az://texts/**", exclude=["data/*"]) == ["a.txt"]
    assert names(account, "a.txt", "az://texts/data", roots=[".", "az://texts"]) == ["a.txt", "data/b.txt"]
    with pytest.raises(UsageError, match="is below no `--root`"):
        names(account, "az://texts/**", roots=["az://texts/data"])


@pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
def test_all_names_are_found_and_addressed(account, put, name):
    put(name, "other.txt")
    for given in (f"az://texts/{name}", account.blob_url("texts", name)):
        [file] = find(account, given)
        assert parse_place("", file.path).path == name
    assert parse_place("", file.path).account == account.endpoint
    assert name in names(account, "az://texts/**")
    assert account.etags("texts", [name]) == {name: file.etag}


def test_existing_blob_or_folder_is_no_pattern(account, put):
    put("[1].txt", "1.txt", "texts [2026]/1.txt", "texts [2026]/[1].txt", "texts 2/1.txt")
    assert names(account, "az://texts/[1].txt") == ["[1].txt"]
    assert names(account, "az://texts/texts [2026]") == ["1.txt", "[1].txt"]
    assert names(account, "az://texts/texts [2026]/*.txt") == ["1.txt", "[1].txt"]


def test_folder_markers_are_no_inputs(account, put):
    put("data/", "data/deep/", content=b"")
    put("data/a.txt", "data/deep/b.txt")
    assert names(account, "az://texts/**") == ["data/a.txt", "data/deep/b.txt"]
    assert names(account, "az://texts/data/") == ["a.txt", "deep/b.txt"]


def test_stored_results_are_no_inputs(account, put):
    put("a.txt", "known/sources/b.txt", "known.txt")
    finder = BlobFinder(account, "az://texts/known")
    assert [file.name for file in find_inputs(LocalFiles(inputs=["az://texts"]), (), finder)] == ["a.txt", "known.txt"]


@pytest.mark.parametrize("count", [2, 40])
def test_etags_take_one_listing(account, put, storage, count):
    wanted = [f"data/{number:03}.txt" for number in range(count)]
    put(*wanted, "data/", "data/1000.txt", "z.txt", "\U0001f600.txt", "\uffee.txt")
    before = storage._requests
    assert account.etags("texts", wanted).keys() == set(wanted)
    assert storage._requests == before + 1
    # Python orders the last two in another way than the service.
    assert account.etags("texts", [*wanted, "\U0001f600.txt", "\uffee.txt", "gone"]).keys() == {
        *wanted,
        "\U0001f600.txt",
        "\uffee.txt",
    }


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("az://", "names no container"),
        ("az://texts/nothing", "matches no blob"),
        ("az://texts/*.nothing", "matches no blob"),
        ("az://missing/**", "The container of az://missing/\\*\\* does not exist"),
        ("az://missing/a*.txt", "The container of az://missing/a\\*.txt does not exist"),
        ("az://missing/a", "The container of az://missing/a does not exist"),
        ("az://missing", "The container of az://missing does not exist"),
        ("http://127.0.0.1:10000/other/texts/a.txt", "a token is never sent over plain http"),
    ],
)
def test_input_without_blobs_is_rejected(account, put, given, reason):
    put("a.txt")
    with pytest.raises(UsageError, match=reason):
        names(account, given)


@pytest.mark.parametrize(
    ("properties", "problem"),
    [
        ("<AccessTier>Archive</AccessTier>", "is archived: rehydrate it first"),
        (
            "<AccessTier>Archive</AccessTier><ArchiveStatus>rehydrate-pending-to-hot</ArchiveStatus>",
            "is still being rehydrated",
        ),
        ("<CustomerProvidedKeySha256>YQ==</CustomerProvidedKeySha256>", "is encrypted with a key"),
        ("<AccessTier>Cold</AccessTier>", ""),
    ],
)
def test_unreadable_blob_has_its_problem(account, put, storage, monkeypatch, properties, problem):
    put("a.txt")

    def answer(request):
        response = storage.answer(request)
        response.body = response.body.replace(b"<BlobType>", properties.encode() + b"<BlobType>")
        response.headers["Content-Length"] = str(len(response.body))
        return response

    monkeypatch.setattr(transport, "Session", lambda: InProcessSession(answer))
    [file] = find(BlobAccount(account._settings), "az://texts/a.txt")
    assert file.problem.startswith(problem)
    assert bool(file.problem) == bool(problem)


def test_listing_is_repeated_after_broken_answer(account, put, storage, monkeypatch):
    put("a.txt", "b.txt")
    broken = iter([True])

    def answer(request):
        response = storage.answer(request)
        if "comp=list" in request.url and next(broken, False):
            response.body = response.body[: len(response.body) // 2]
            response.headers["Content-Length"] = str(len(response.body))
        return response

    monkeypatch.setattr(transport, "Session", lambda: InProcessSession(answer))
    assert names(BlobAccount(account._settings), "az://texts/*") == ["a.txt", "b.txt"]
    assert next(broken, None) is None


def test_container_without_access_is_rejected(account, storage, monkeypatch):
    document = b"<Error><Code>AuthorizationPermissionMismatch</Code><Message>Not you.</Message></Error>"
    headers = {
        "x-ms-error-code": "AuthorizationPermissionMismatch",
        "x-ms-request-id": "1",
        "Content-Length": str(len(document)),
    }
    monkeypatch.setattr(
        storage, "answer", lambda _: Response(403, {**headers, "Content-Type": "application/xml"}, document)
    )
    monkeypatch.setattr(transport, "Session", lambda: InProcessSession(storage.answer))
    account = BlobAccount(account._settings)
    with pytest.raises(UsageError, match=r"may not be read .*Storage Blob Data Reader"):
        names(account, "az://texts/**")


def test_listing_may_encode_names(account, storage, put, monkeypatch):
    put("a.txt", "b%41.txt")
    answer = storage.answer

    def encoded(request):
        response = answer(request)
        response.body = response.body.replace(b"<Name>a.txt", b'<Name Encoded="true">a%EF%BF%BE.txt')
        response.headers["Content-Length"] = str(len(response.body))
        return response

    monkeypatch.setattr(transport, "Session", lambda: InProcessSession(encoded))
    blobs = list(BlobAccount(account._settings).list_blobs("texts"))
    assert [(blob.name, blob.size_bytes, blob.problem) for blob in blobs] == [
        ("a\ufffe.txt", 4, ""),
        ("b%41.txt", 4, ""),
    ]


@pytest.mark.parametrize("others", [0, 200])
def test_etags_are_found_in_short_listings(account, storage, put, monkeypatch, others):
    """Each blob is followed by others."""
    wanted = [f"{number:04}" for number in range(20)]
    put(*wanted)
    etags = {blob.name: blob.etag for blob in account.list_blobs("texts")}
    blobs = storage.containers["texts"].committed
    blobs |= {f"{name}-{other}": blobs[name] for name in wanted for other in range(others)}
    answers = []

    def answer(request):
        answers.append(storage.answer(request))
        return answers[-1]

    monkeypatch.setattr(transport, "Session", lambda: InProcessSession(answer))

    assert BlobAccount(account._settings).etags("texts", wanted) == etags
    assert len(answers) <= (len(wanted) if others else 1)
    assert sum(each.body.count(b"<Blob>") for each in answers) <= (MAX_LISTED_PER_BLOB + 1) * len(wanted)


def test_night_without_news_needs_few_requests(account, storage, put, monkeypatch, tmp_path):
    """The results of 2,000 blobs are in a container, in one part for each of 20 chunks."""
    put("2026/0.txt")
    [blob] = storage.containers["texts"].committed.values()
    storage.containers["texts"].committed = {
        f"2026/{day:02}/{number:05}.txt": replace(blob, etag=f'"{day}-{number}"')
        for day in range(20)
        for number in range(100)
    }
    account.create_container("results", {})
    workload = Workload(name="own", command="true", outputs=("out",))
    local = LocalFiles(inputs=["az://texts/2026/**/*.txt"], output_folder=str(tmp_path))
    sent = []

    def answer(request):
        sent.append(request)
        return storage.answer(request)

    monkeypatch.setattr(transport, "Session", lambda: InProcessSession(answer))
    account = BlobAccount(account._settings)

    def plan():
        found = find_files(local, workload.suffixes, BlobFinder(account))
        return create_plan(found, workload, ContainerStore(account, "results"))

    first = plan()
    result = StoredResult(outputs=Outputs.of({"out": b"text"}), provenance=PROVENANCE, sha256="0" * 64)
    for chunk in first.chunks:
        added = {file.content_key: SourceResult(blob=file.place.path, result=result) for file in chunk.files}
        ContainerStore(account, "results").add(chunk.files[0].source, added)
    sent.clear()
    second = plan()

    assert (len(first.chunks), first.new_file_count) == (20, 2_000)
    assert (second.new_file_count, len(second.unchanged)) == (0, 2_000)
    assert len(sent) <= 2_000 / 30


def test_packs_of_blobs_share_an_archive(account, storage, put, tmp_path):
    put(*(f"{number}.txt" for number in range(5)))
    (tmp_path / "local.txt").write_text("text")
    local = LocalFiles(inputs=["az://texts/*.txt", str(tmp_path / "local.txt")], output_folder=str(tmp_path / "out"))
    workload = Workload(name="own", command="true", outputs=("out",))
    found = find_files(local, workload.suffixes, BlobFinder(account))
    plan = create_plan(found, workload, FolderStore(tmp_path / "store"), files_per_task=2)
    account.create_container("run-in", {})
    packs = [pack for chunk in plan.chunks for pack in chunk.packs]

    staged = stage_chunk(account, Chunk(first=1, total=6, packs=tuple(packs)), workload, Containers.of("run"))

    names = ["blobs.tar", "blobs.tar", f"{packs[2].task_id}.tar"]
    assert [pack.input_blob for pack in staged.staged] == names
    assert storage.containers["run-in"].blobs.keys() == set(names)
    # Without its local file, a pack still has its own archive.
    (tmp_path / "local.txt").write_text("changed")
    staged = stage_chunk(account, Chunk(first=1, total=2, packs=(packs[2],)), workload, Containers.of("run"))
    assert [(len(pack.files), pack.input_blob) for pack in staged.staged] == [(1, names[2])]
