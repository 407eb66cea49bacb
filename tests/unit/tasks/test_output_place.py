"""An output folder in Blob Storage: it behaves like one on this machine, and changes as few blobs as possible."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from io import BytesIO
from pathlib import Path

import pytest
import requests
from run_reports import counted, failed, run_report
from simulation.storage import InProcessSession, MemoryStorage, Response

from localbatch.processes.azurite import STORAGE_ACCOUNT, STORAGE_KEY
from tasks.azure import accounts, blob, transport
from tasks.azure.blob import BlobAccount
from tasks.azure.blob_outputs import open_blob
from tasks.azure.settings import AzureSettings
from tasks.errors import ConfigurationError, ServiceError, UsageError
from tasks.model.inputs import LocalFiles
from tasks.model.output_names import output_name
from tasks.model.outputs import Scratch
from tasks.report.folders import open_folder
from tasks.report.output_folder import find_files, read_manifest, write_outputs

SUFFIXES = (".txt", ".json")
PLACE = "az://out/nightly"


class Storage:
    """A storage account in memory with the container `out`. `before` is called with each request, and may answer it."""

    def __init__(self):
        self.memory = MemoryStorage(STORAGE_ACCOUNT, STORAGE_KEY, lambda: datetime.now(timezone.utc))
        self.requests = []
        self.before = lambda request: None

    def answer(self, request):
        self.requests.append((request.method, request.url.partition("/nightly")[2].partition("?")[0]))
        return self.before(request) or self.memory.answer(request)

    @property
    def blobs(self):
        return self.memory.containers["out"].blobs

    def writes(self):
        """Return what was written or deleted since the last call, in order."""
        found = [path for method, path in self.requests if method in {"PUT", "DELETE"}]
        self.requests.clear()
        return found


@pytest.fixture
def storage():
    return Storage()


@pytest.fixture(autouse=True)
def account(storage, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(transport, "Session", lambda: InProcessSession(storage.answer))
    account = BlobAccount(
        AzureSettings(
            storage_endpoint=storage.memory.endpoint, storage_account=STORAGE_ACCOUNT, storage_key=STORAGE_KEY
        )
    )
    monkeypatch.setattr(accounts, "blob_account", lambda: account)
    account.create_container("out", {})
    return account


def named(report, name):
    return replace(report, file=replace(report.file, name=name, path=f"/data/{name}", output=output_name(name)))


def write(*files, run="run1", table=None, page=None, workload=None, output_folder=PLACE):
    report = run_report(*files, output_folder=output_folder)
    report = replace(report, workload=workload or report.workload)
    page = page and (open_folder(page), "report.html")
    return write_outputs(report, {"id": run}, lambda _: None, table, page).errors


def find(account, *inputs, **options):
    return find_files(LocalFiles(inputs=inputs or ["a.txt"], output_folder=PLACE, **options), SUFFIXES, account=account)


def entries(account):
    return {entry.name: entry for entry in read_manifest(open_folder(PLACE, account)).entries}


def refuse(code, *, method="PUT", path=""):
    """Return a function that answers requests with an error."""

    def answer(request):
        if request.method == method and path in request.url:
            headers = {"x-ms-error-code": code, "x-ms-request-id": "1", "Content-Type": "application/xml"}
            return Response(
                403, headers, f"<Error><Code>{code}</Code><Message>Not authorized.</Message></Error>".encode()
            )
        return None

    return answer


def test_place_has_what_its_manifest_lists(storage, account):
    assert write(named(counted(1), "a.txt"), named(counted(2), "b/../c.md"), failed(3, "bad.txt"), table="t.csv") == []
    names = ("a_OUTPUT.txt", "a_OUTPUT.json", "b/%2E%2E/c.md_OUTPUT.txt", "b/%2E%2E/c.md_OUTPUT.json", "results.csv")
    assert set(storage.blobs) == {f"nightly/{name}" for name in ("manifest.json", *names)}
    manifest = read_manifest(open_folder(PLACE, account))
    assert manifest.paths - set(manifest.documents) | {"results.csv"} == {"manifest.json", *names}
    assert Path("t.csv").read_text().startswith("file,rank")
    assert [entry.status for entry in manifest.entries] == ["done", "done", "failed"]


def test_failed_file_loses_older_outputs(storage, account):
    write(named(counted(1), "a.txt"), named(counted(2), "b.txt"))
    write(named(failed(1), "a.txt"), run="run2")
    assert {name for name in storage.blobs if "OUTPUT" in name} == {"nightly/b_OUTPUT.txt", "nightly/b_OUTPUT.json"}
    assert (entries(account)["a.txt"].outputs, entries(account)["b.txt"].run) == ((), "run1")


def test_unchanged_files_are_not_written_again(storage):
    files = [counted(number) for number in range(300)]
    write(*files)
    storage.writes()
    changed = replace(counted(7, top=(("new", 1),)), file=files[7].file)
    assert write(*files[:7], changed, *files[8:], run="run2") == []
    name = f"/{files[7].file.output}"
    writes = storage.writes()
    assert sorted(writes[1:-1]) == [f"{name}.json", f"{name}.txt", "/results.csv"]
    assert (writes[0], writes[-1]) == ("/manifest.json", "/manifest.json")
    assert write(*files[:7], changed, *files[8:], run="run3") == []
    assert [method for method, _ in storage.requests].count("GET") <= 4
    assert storage.writes() == ["/manifest.json", "/manifest.json"]


@pytest.mark.parametrize(
    "path", ["manifest.json", "results.csv", "sub/b_OUTPUT.txt", "sub", "a_OUTPUT.txt/x", "all.csv"]
)
def test_blob_of_user_is_never_replaced(storage, account, path):
    for name in ("data/a.txt", "data/sub/b.txt"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("text")
    account.upload_bytes("out", f"nightly/{path}", b"mine")
    storage.requests.clear()
    with pytest.raises(UsageError, match=r"/out/nightly/[\w./]+` is (in the way|not a manifest)"):
        find(account, "data", table=f"{PLACE}/all.csv")
    assert storage.blobs == {f"nightly/{path}": b"mine"}


def test_own_outputs_are_replaced(storage, account):
    Path("a.txt").write_text("text")
    for run in ("run1", "run2"):
        tables = (f"{PLACE}/all.csv", "here.csv")
        for table in tables:
            assert [file.name for file in find(account, table=table)] == ["a.txt"]
            assert write(named(counted(1), "a.txt"), run=run, table=table) == []
    storage.requests.clear()
    find(account)
    # The manifest, one listing of the place, and the checks of read and write access.
    assert len(storage.requests) == 4


def test_local_document_of_user_is_never_replaced(account):
    Path("a.txt").write_text("text")
    Path("here.csv").write_text("mine")
    with pytest.raises(UsageError, match=r"`here\.csv` is in the way"):
        find(account, table="here.csv")
    Path("report.html").write_text("mine")
    with pytest.raises(UsageError, match=r"`report\.html` is in the way"):
        find(account, report_folder=".")
    write(named(counted(1), "a.txt"), page=".")
    find(account, report_folder=".")


def test_page_of_user_in_storage_is_never_replaced(account):
    account.upload_bytes("out", "pages/report.html", b"mine")
    Path("a.txt").write_text("text")
    local = LocalFiles(inputs=["a.txt"], output_folder="results", report_folder="az://out/pages/")
    with pytest.raises(UsageError, match=r"/out/pages/report\.html` is in the way"):
        find_files(local, SUFFIXES, account=account)
    write(named(counted(1), "a.txt"), output_folder="results", page="az://out/pages")
    find_files(local, SUFFIXES, account=account)


def test_place_of_page_is_checked(account):
    Path("a.txt").write_text("text")
    with pytest.raises(
        UsageError, match=r"^The report folder http://\S+ cannot be used: The container `missing` does not"
    ):
        find(account, report_folder="az://missing")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("az://missing/x", r"The container `missing` does not exist"),
        ("az://out/x", "Not authorized"),
    ],
)
def test_unusable_place_is_refused(storage, account, place, message):
    Path("a.txt").write_text("text")
    storage.before = refuse("AuthorizationPermissionMismatch") if place == "az://out/x" else storage.before
    with pytest.raises(UsageError, match=rf"^The output folder http://\S+ cannot be used: .*{message}"):
        find_files(LocalFiles(inputs=["a.txt"], output_folder=place), SUFFIXES, account=account)
    assert storage.blobs == {}


def test_unknown_account_is_refused_soon(storage, account, monkeypatch):
    def fail(request):
        raise requests.exceptions.ConnectionError("Failed to resolve 'nowhere'")

    monkeypatch.setattr("tasks.azure.client.FIRST_BACKOFF_SECONDS", 0)
    Path("a.txt").write_text("text")
    storage.before = fail
    storage.requests.clear()
    with pytest.raises(UsageError, match="its host name cannot be resolved"):
        find(account)
    assert len(storage.requests) <= 4


@pytest.mark.parametrize(
    ("given", "place", "is_within"),
    [
        ("az://out", "az://out/nightly", True),
        ("az://out/", "az://out/nightly", True),
        ("az://out/night", "az://out/nightly", False),
        ("az://out/nightly", "az://out/nightly", True),
        ("az://out/nightly/", "az://out/nightly", True),
        ("az://out/nightly/x", "az://out/nightly", False),
        ("az://out/night*/*.txt", "az://out/nightly", True),
        ("az://out/in/*.txt", "az://out/nightly", False),
        ("az://out/in*.txt", "az://out/nightly", False),
        ("az://out/*.txt", "az://out/nightly", True),
        ("az://texts", "az://out/nightly", False),
        ("http://127.0.0.1:10000/devstoreaccount1/out", "az://out/nightly", True),
        ("https://other.blob.core.windows.net/out", "az://out/nightly", False),
    ],
)
def test_place_within_the_inputs_is_refused(account, given, place, is_within):
    with pytest.raises((UsageError, ConfigurationError)) as refusal:
        find_files(LocalFiles(inputs=[given], output_folder=place), SUFFIXES, account=account)
    assert ("is within the input" in str(refusal.value)) == is_within


class Interrupted(type(run_report().workload)):
    """A workload whose documents are created after something else has happened once."""

    def documents(self, file, result):
        if actions:
            actions.pop()()
        return super().documents(file, result)


actions = []


def test_runs_at_once_keep_all_entries(account):
    workload = run_report().workload
    interrupted = Interrupted(**{name: getattr(workload, name) for name in workload.__dataclass_fields__})
    actions.append(lambda: write(named(counted(2), "b.txt"), run="run2"))
    assert write(named(counted(1), "a.txt"), run="run1", workload=interrupted) == []
    assert {name: (entry.run, entry.status) for name, entry in entries(account).items()} == {
        "a.txt": ("run1", "done"),
        "b.txt": ("run2", "done"),
    }


def test_lost_race_for_the_manifest_is_repeated(storage, account):
    others = [f"other{number}.txt" for number in range(5)]

    def write_other(request):
        if request.method == "PUT" and request.url.endswith("manifest.json") and others:
            name, storage.before = others.pop(), lambda request: None
            write(named(counted(len(others)), name), run=name)
            storage.before = write_other

    storage.before = write_other
    assert write(named(counted(9), "a.txt")) == []
    assert set(entries(account)) == {"a.txt", *(f"other{number}.txt" for number in range(5))}
    assert all(f"nightly/{output}" in storage.blobs for entry in entries(account).values() for output in entry.outputs)


def test_file_that_cannot_be_written_stops_no_other(storage, account):
    storage.before = refuse("AuthorizationPermissionMismatch", path="b_OUTPUT.json")
    errors = write(*(named(counted(number), f"{name}.txt") for number, name in enumerate("abc")))
    assert [error.partition(" (")[0] for error in errors] == ["b_OUTPUT"]
    assert {name: (entry.status, entry.outputs) for name, entry in entries(account).items()} == {
        "a.txt": ("done", ("a_OUTPUT.txt", "a_OUTPUT.json")),
        "b.txt": ("failed", ()),
        "c.txt": ("done", ("c_OUTPUT.txt", "c_OUTPUT.json")),
    }
    assert "nightly/b_OUTPUT.txt" not in storage.blobs


def test_outage_is_noticed_once(storage, monkeypatch):
    """Each request is retried for minutes, so not each of many files waits for that."""

    def fail(request):
        if request.method == "PUT" and "OUTPUT" in request.url:
            raise requests.exceptions.ConnectionError("Connection refused")

    monkeypatch.setattr("tasks.azure.client.FIRST_BACKOFF_SECONDS", 0)
    storage.before = fail
    errors = write(*(counted(number) for number in range(50)))
    assert len([error for error in errors if "nothing listens" in error]) >= 50
    attempted = {path for method, path in storage.requests if "OUTPUT" in path}
    assert len(attempted) < 25


def test_damaged_manifest_fails_the_outputs(storage, account):
    account.upload_bytes("out", "nightly/manifest.json", b"{}")
    [error] = write(named(counted(1), "a.txt"))
    assert "is not a manifest of topn" in error
    assert storage.blobs == {"nightly/manifest.json": b"{}"}


def test_large_documents_have_hashes(storage, account):
    folder = open_folder(PLACE, account)
    content = bytes(9 * 1024 * 1024)
    folder.write("large", content)
    storage.writes()
    open_folder(PLACE, account).write("large", lambda file: file.write(content))
    assert storage.writes() == []


def remote_output(account):
    account.create_container("source", {})
    account.upload_archive("source", "a", BytesIO(b"x" * 2000))
    return open_blob(account, "source", "a", Scratch())


@pytest.mark.parametrize("status", ["success", "failed"])
def test_copy_in_background_is_waited_for(storage, account, monkeypatch, status):
    monkeypatch.setattr(blob, "MAX_SYNC_COPY_BYTES", 0)
    monkeypatch.setattr(blob, "COPY_POLL_SECONDS", 0)
    statuses = iter(["pending", "pending", status])

    def with_status(request):
        if request.method != "HEAD":
            return None
        response = storage.memory.answer(request)
        response.headers |= {"x-ms-copy-status": next(statuses), "x-ms-copy-status-description": "500 too slow"}
        return response

    output = remote_output(account)
    storage.before = with_status
    if status == "failed":
        with pytest.raises(ServiceError, match="could not copy a blob to out/nightly/a: 500 too slow"):
            open_folder(PLACE, account).write("a", output)
    else:
        open_folder(PLACE, account).write("a", output)
        assert storage.blobs["nightly/a"] == b"x" * 2000
    assert next(statuses, None) is None


@pytest.mark.parametrize("status", ["pending", "failed", "success"])
def test_unfinished_copy_is_made_again(storage, account, status):
    """A run was killed while Storage made a copy."""
    output = remote_output(account)
    open_folder(PLACE, account).write("a", output)
    storage.memory.containers["out"].committed["nightly/a"].copy["x-ms-copy-status"] = status
    storage.requests.clear()
    open_folder(PLACE, account).write("a", output)
    assert storage.writes() == ([] if status == "success" else ["/a"])
