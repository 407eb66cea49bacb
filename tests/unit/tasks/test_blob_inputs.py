"""Finding input files in an in-memory storage account."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pytest
from simulation.storage import InProcessSession, MemoryStorage, Request, Response

from localbatch.processes.azurite import STORAGE_ACCOUNT, STORAGE_KEY
from tasks.azure import transport
from tasks.azure.blob import MIN_BLOBS_FOR_LISTING, BlobAccount
from tasks.azure.blob_inputs import BlobFinder
from tasks.azure.settings import AzureSettings
from tasks.errors import UsageError
from tasks.model.inputs import LocalFiles, find_inputs
from tasks.model.urls import parse_place

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


def test_many_etags_take_one_listing(account, put, storage):
    wanted = [f"data/{number:03}.txt" for number in range(2 * MIN_BLOBS_FOR_LISTING)]
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
        ("http://127.0.0.1:10000/other/texts/a.txt", "a token is never sent over plain http"),
    ],
)
def test_input_without_blobs_is_rejected(account, put, given, reason):
    put("a.txt")
    with pytest.raises(UsageError, match=reason):
        names(account, given)


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
