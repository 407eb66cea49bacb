"""A file that cannot be staged, submitted or collected fails alone, with the true reason."""

from __future__ import annotations

import hashlib
import logging
import re
from datetime import timedelta
from pathlib import Path

import pytest
from markdown_support import Shown
from tests_support import independent_count, send_to_prefect, watch_requests

from flows.topn import run_workload, workload_flow
from localbatch import LocalBatch
from tasks.errors import OutputError
from tasks.report.model import FilesFailedError
from tasks.workload.base import Workload

pytestmark = pytest.mark.xdist_group("failing_azure")


@pytest.fixture
def storage_faults(failing_azure):
    yield failing_azure.storage_faults
    failing_azure.storage_faults.clear()


def write_texts(count):
    texts = {f"{number}.txt": f"word {number} of {Path.cwd()}" for number in range(count)}
    for name, text in texts.items():
        Path(name).write_text(text)
    return texts


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()


def errors(found):
    return {file["file"]: file["error"]["message"] for file in found["files"] if file["status"] == "failed"}


def assert_counted(found, texts):
    for file in found["files"]:
        if file["status"] != "failed":
            assert (file["words"], file["distinct"], file["top"]) == independent_count(texts[file["file"]])


@pytest.mark.parametrize("arguments", [(), ("--files-per-task", "3")], ids=["files", "packs"])
def test_refused_upload_fails_its_files_only(topn, failing_azure, storage_faults, arguments):
    texts = write_texts(6)
    path = f"*/{digest(texts['2.txt'])}" if not arguments else "*-in/p-*.tar"
    storage_faults.add("answer", operation="put_blob", path=path, status=403, code="AuthorizationFailure")
    found = topn.json(*texts, *arguments, status=1, **failing_azure.environment)
    failed = errors(found)
    assert len(failed) == (3 if arguments else 1)
    for message in failed.values():
        assert message.startswith("It could not be staged: Storage could not upload ")
        assert "[AuthorizationFailure]" in message
    assert_counted(found, texts)


def test_refused_download_fails_its_file_only(topn, failing_azure, storage_faults):
    texts = write_texts(3)
    storage_faults.add("answer", operation="get_blob", path="*-out/*_OUTPUT.json", status=403, code="BlobArchived")
    found = topn.json(*texts, status=1, **failing_azure.environment)
    [message] = errors(found).values()
    assert message.startswith("It could not be collected: Storage could not download ")
    assert "[BlobArchived]" in message
    assert_counted(found, texts)


class Fragile(Workload):
    """A workload with a mistake that shows on one file."""

    def output_error(self, file, outputs):
        return {"0.txt": None, "2.txt": None}[file.name]


FRAGILE = Fragile(name="fragile", command="wc -l < input > lines.txt", outputs=("lines.txt",))


def test_mistake_of_workload_fails_its_file_only(topn, failing_azure, caplog):
    write_texts(3)

    @workload_flow("fragile")
    def fragile():
        return run_workload(FRAGILE, ["*.txt"], "out")

    with (
        topn.environ(**failing_azure.environment),
        caplog.at_level(logging.ERROR),
        pytest.raises(FilesFailedError) as failure,
    ):
        fragile()
    [failed] = failure.value.report.failed
    assert failed.file.name == "1.txt"
    assert failed.error.message == "The workload fragile could not check its outputs: KeyError: '1.txt'"
    assert sorted(path.name for path in Path("out").glob("*_OUTPUT*")) == ["0_OUTPUT.lines.txt", "2_OUTPUT.lines.txt"]
    assert "Traceback" in caplog.text
    assert "in output_error" in caplog.text


class Careless(Workload):
    """A workload with mistakes in what it shows of its results."""

    def columns(self, file, result):
        return {"0.txt": {"lines": 1}}[file.name]

    def rows(self, file, result):
        raise ValueError(f"no rows of {file.name}")


CARELESS = Careless(name="careless", command="wc -l < input > lines.txt", outputs=("lines.txt",))


def test_mistake_of_presentation_costs_only_its_part(topn, failing_azure, prefect_api, caplog):
    write_texts(2)

    @workload_flow("careless")
    def careless():
        return run_workload(CARELESS, ["*.txt"], "out")

    with (
        topn.environ(**failing_azure.environment),
        caplog.at_level(logging.ERROR),
        pytest.raises(OutputError, match=r"/out/results.csv \(unexpected ValueError, see the log of the run\)"),
    ):
        careless()
    assert sorted(path.name for path in Path("out").glob("*_OUTPUT*")) == ["0_OUTPUT.lines.txt", "1_OUTPUT.lines.txt"]
    assert caplog.text.count("Traceback") == len(["columns", "rows"])
    for line in ("in columns", "KeyError: '1.txt'", "in rows", "ValueError: no rows of 0.txt"):
        assert line in caplog.text
    query = {"artifacts": {"key": {"any_": ["careless-summary"]}}}
    [summary] = send_to_prefect(prefect_api, "/artifacts/filter", query)
    shown = Shown(summary["data"]).text
    assert "columns of 1.txt is missing, because the workload careless raised KeyError: '1.txt'." in shown.replace(
        "`", ""
    )
    assert "results.csv (unexpected ValueError, see the log of the run) could not be written." in shown
    flow_run = send_to_prefect(prefect_api, f"/flow_runs/{summary['flow_run_id']}")
    assert re.fullmatch(r"2 files: 2 done: /.*", flow_run["name"])


def test_changed_files_fail_with_true_reason(topn, failing_azure, storage_faults):
    """Chunks of which nothing can be staged have different keys."""
    texts = write_texts(4)
    storage_faults.add(
        "answer", operation="put_blob", path="*-in/*", times=100, status=403, code="AuthorizationFailure"
    )
    failed = errors(topn.json(*texts, status=1, **failing_azure.environment))
    assert len(failed) == 4
    assert all("It could not be staged" in message for message in failed.values())


def test_failing_results_store_is_only_a_warning(topn, failing_azure, tmp_path):
    texts = write_texts(3)
    (tmp_path / "store").write_text("A file in place of a folder.")
    done = topn("run", "--json", *texts, TOPN_RESULTS=str(tmp_path / "store"), **failing_azure.environment)
    assert done.returncode == 0
    assert done.stderr.count("Some results cannot be stored") == 1
    assert len(list(Path("results").glob("*_OUTPUT.txt"))) == 3


def test_container_store_must_exist_in_account(topn, failing_azure):
    write_texts(1)
    endpoint = failing_azure.environment["TOPN_STORAGE_ENDPOINT"]
    for location, words in (
        (f"{endpoint}/missing", "which does not exist"),
        ("https://other.blob.core.windows.net/results", "which is not a container of the storage account"),
        (f"{endpoint}/results?sv=1", "contains more than an address"),
    ):
        done = topn("run", "0.txt", TOPN_RESULTS=location, **failing_azure.environment)
        assert (done.returncode, words in done.stderr) == (2, True), done.stderr
    assert failing_azure.batch.requests[-1].method == "GET"


@pytest.fixture
def container_store(topn, failing_azure):
    """The environment of runs that store their results in a container of their own, and its name."""
    with topn.environ(**failing_azure.environment):
        from tasks.azure.accounts import blob_account  # noqa: PLC0415 - after the environment is set

        name = f"store-{digest(str(Path.cwd()))[:20]}"
        blob_account().create_container(name, {})
    location = f"{failing_azure.environment['TOPN_STORAGE_ENDPOINT']}/{name}"
    return {"TOPN_RESULTS": location, **failing_azure.environment}, name


@pytest.mark.parametrize("operation", ["list_blobs", "put_blob"])
def test_inaccessible_store_stops_run_before_start(topn, failing_azure, storage_faults, container_store, operation):
    """Also `topn plan`, because a run would fail."""
    write_texts(1)
    variables, name = container_store
    storage_faults.add(
        "answer", operation=operation, path=f"*/{name}*", times=100, status=403, code="AuthorizationPermissionMismatch"
    )
    requests = watch_requests(failing_azure.batch)
    for command in ("run", "plan"):
        done = topn(command, "0.txt", **variables)
        assert done.returncode == 2
        message = done.stderr.splitlines()[-1]
        assert message.startswith(
            f"TOPN_RESULTS names the container `{name}`, which cannot be used: Storage could not "
        )
        assert "[AuthorizationPermissionMismatch]" in message
    assert {request.method for request in requests()} == {"GET"}
    storage_faults.clear()
    assert topn("run", "0.txt", **variables).returncode == 0


def test_unreadable_stored_result_is_counted_again(topn, storage_faults, container_store):
    texts = write_texts(2)
    variables, name = container_store
    topn.json(*texts, **variables)
    storage_faults.add("answer", operation="get_blob", path=f"*/{name}/*", status=409, code="BlobArchived")
    done = topn("run", *texts, **variables)
    assert done.returncode == 0
    assert "1 counted, 1 unchanged" in done.stdout + done.stderr
    assert done.stderr.count("Some stored results cannot be read, so their files are processed again") == 1
    assert "[BlobArchived]" in done.stderr


@pytest.mark.parametrize("minutes", [10, 70])
def test_run_warns_about_clock(topn, failing_azure, tmp_path, monkeypatch, minutes):
    # A new process knows only the clock of its machine.
    monkeypatch.setattr("tasks.clock._ahead", {})
    with LocalBatch(state_dir=tmp_path / "batch", pace="instant") as batch:
        batch.advance(timedelta(minutes=minutes))
        account = {
            "TOPN_BATCH_ENDPOINT": batch.endpoint,
            "TOPN_BATCH_ACCOUNT": batch.account,
            "TOPN_BATCH_KEY": batch.key,
        }
        write_texts(1)
        done = topn("run", "0.txt", **failing_azure.environment | account)
    assert done.returncode == 0
    assert done.stderr.count(f"This machine's clock is {minutes} minutes behind that of Batch.") == 1
