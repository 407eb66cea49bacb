"""The final state of a run, and its errors."""

from __future__ import annotations

import pickle
from dataclasses import fields, replace
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_LOGGING_TO_API_ENABLED, temporary_settings
from prefect.states import Cancelled, Failed
from run_reports import counted, failed, run_report

from flows.topn import topn
from tasks.errors import NotFoundError, OutputError, ServiceError, TopnError
from tasks.progress import listen
from tasks.report.folders import LocalFolder
from tasks.report.model import FilesFailedError
from tasks.report.output_folder import write_outputs
from tasks.steps.report import _write_page, final_state, report_failure


class BrokenWorkload(type(run_report().workload)):
    """A workload that fails once a page links to its outputs."""

    @property
    def suffixes(self):
        raise ZeroDivisionError


def broken(report):
    values = {field.name: getattr(report.workload, field.name) for field in fields(report.workload)}
    return replace(report, workload=BrokenWorkload(**values))


@pytest.mark.parametrize(
    ("folder", "report", "is_listed", "reason"),
    [
        ("page", run_report(counted(1)), True, ""),
        ("a.txt", run_report(counted(1)), True, "The report a.txt/report.html could not be written: File exists."),
        (
            "page",
            broken(run_report(counted(1))),
            True,
            "could not be written: unexpected ZeroDivisionError, see the log",
        ),
        ("page", run_report(counted(1)), False, "The report was not written, because the manifest"),
    ],
)
def test_page_that_cannot_be_written_is_a_warning(tmp_path, monkeypatch, folder, report, is_listed, reason):
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("mine")
    notes = []
    with listen(lambda progress: notes.append(progress.note)):
        found = _write_page(report, LocalFolder(folder), "report.html", is_listed=is_listed)
    assert found.page == ("" if reason else str(tmp_path / "page/report.html"))
    assert (Path("page/report.html").exists(), len(notes)) == (not reason, bool(reason))
    assert reason in "".join(notes)


@pytest.fixture
def fail(tmp_path, monkeypatch):
    """Return a function that calls the hook for a run that failed, and returns the page."""
    monkeypatch.chdir(tmp_path)
    page = Path("page/report.html")
    page.parent.mkdir()
    page.write_text("of an earlier run")

    def do(run_id=UUID(int=2), state=Failed(message="Batch: no quota for <pool> (sig=abcdefghijkl)")):  # noqa: B008
        parameters = {"inputs": ["a.txt"], "output_folder": "results", "report_folder": "page"}
        report_failure(topn, FlowRun(id=run_id, flow_id=UUID(int=0), name="mine", parameters=parameters), state)
        return page.read_text()

    return do


def write_earlier_run(*, status="completed", page="page"):
    report = run_report(counted(1), output_folder="results")
    manifest = write_outputs(report, {"id": str(UUID(int=1))}, lambda _: None, page=(LocalFolder(page), "report.html"))
    assert (manifest.manifest.status, manifest.errors) == (status, [])


def test_run_without_report_replaces_page(fail):
    write_earlier_run()
    page = fail()
    for text in ("The run failed before its report", "Batch: no quota for &lt;pool&gt; (sig=[hidden]", "a.txt", "mine"):
        assert text in page
    assert "The run was cancelled before its report" in fail(state=Cancelled())


def test_only_page_of_earlier_run_is_replaced(fail):
    assert fail() == "of an earlier run"
    write_earlier_run(page="elsewhere")
    assert fail() == "of an earlier run"
    write_earlier_run()
    assert fail(UUID(int=1)) == "of an earlier run"


def test_unreadable_manifest_ends_no_hook(fail, caplog):
    Path("results").mkdir()
    Path("results/manifest.json").write_text("{")
    with temporary_settings({PREFECT_LOGGING_TO_API_ENABLED: False}):
        assert fail() == "of an earlier run"
    assert "could not be replaced" in caplog.text


def test_final_state_names_failures_in_bounded_printable_text():
    message = final_state(run_report(*(failed(n, f"{n}\x1b[2J", "\u202e" * 5000) for n in range(20)))).message
    assert message.startswith("0\\x1b[2J: \\u202e")
    assert message.endswith("; and 17 more. 20 of 20 files failed.")
    assert message.isprintable()
    assert len(message) < 4000


@pytest.mark.parametrize(
    "error",
    [
        TopnError("a\x1b[2J\nb"),
        OutputError("a\x1b[2J\nb"),
        NotFoundError("a\x1b[2J\nb", service="Batch", operation="get pool p"),
        ServiceError("a\x1b[2J\nb", service="Batch", operation="get pool p"),
        FilesFailedError("a\x1b[2J\nb", run_report(failed(1))),
    ],
)
def test_error_message_is_one_printable_line(error):
    assert str(error) == "a\\x1b[2J\\nb"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
