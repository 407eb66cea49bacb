"""Outputs are written only below the output folder and never replace an input."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
from run_reports import counted, failed, run_report

from tasks.errors import NotFoundError, OutputError, ServiceError, TopnError
from tasks.report.model import FilesFailedError
from tasks.steps.report import final_state, write_all_outputs


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "output"
    folder.mkdir()
    return folder


@pytest.fixture
def outside(tmp_path):
    folder = tmp_path / "outside"
    folder.mkdir()
    return folder


def make_report(number, name, path=None):
    report = counted(number, name)
    return replace(report, file=replace(report.file, path=str(path or report.file.path), output=f"{name}_OUTPUT"))


def files_below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_outputs_keep_their_folders(folder):
    report = run_report(make_report(1, "a"), make_report(2, "b/c"), failed(3))
    assert write_all_outputs(folder, report) == []
    names = ["a_OUTPUT.json", "a_OUTPUT.txt", "b/c_OUTPUT.json", "b/c_OUTPUT.txt"]
    assert files_below(folder) == names
    assert json.loads((folder / "b/c_OUTPUT.json").read_text())["file"] == "b/c"


@pytest.mark.parametrize("name", ["link/a", "link/new/a", "sub/link/a"])
def test_links_out_of_folder_are_not_followed(folder, outside, name):
    link = folder / name.partition("link")[0] / "link"
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(outside)
    report = run_report(make_report(1, name), make_report(2, "good"))
    assert write_all_outputs(folder, report) == [f"{name}_OUTPUT (a link points outside the output folder)"]
    assert list(outside.iterdir()) == []
    assert (folder / "good_OUTPUT.txt").exists()


def test_dangling_link_creates_no_folder(folder, outside):
    (folder / "link").symlink_to(outside / "new")
    assert len(write_all_outputs(folder, run_report(make_report(1, "link/a")))) == 1
    assert list(outside.iterdir()) == []


def test_link_loop_is_reported(folder):
    (folder / "link").symlink_to(folder / "link")
    [refusal] = write_all_outputs(folder, run_report(make_report(1, "link/a")))
    assert refusal.startswith("link/a_OUTPUT (")


def test_link_at_output_path_is_replaced(folder, outside):
    (outside / "precious").write_text("mine")
    (folder / "a_OUTPUT.txt").symlink_to(outside / "precious")
    assert write_all_outputs(folder, run_report(make_report(1, "a"))) == []
    assert (outside / "precious").read_text() == "mine"
    assert not (folder / "a_OUTPUT.txt").is_symlink()


def test_links_within_folder_are_followed(folder, outside):
    (folder / "real").mkdir()
    (folder / "link").symlink_to("real")
    (outside / "other").symlink_to(folder)
    assert write_all_outputs(outside / "other", run_report(make_report(1, "link/a"))) == []
    assert (folder / "real/a_OUTPUT.txt").exists()


def test_input_is_never_replaced(folder, monkeypatch):
    mine = folder / "a_OUTPUT.txt"
    mine.write_text("my own text")
    monkeypatch.chdir(folder)
    report = run_report(make_report(1, "a", folder / "a"), make_report(2, "b", mine))
    assert write_all_outputs(Path(), report) == ["a_OUTPUT (the output would replace an input)"]
    assert mine.read_text() == "my own text"
    assert (folder / "b_OUTPUT.txt").exists()


def test_final_state_names_failures_in_bounded_printable_text():
    message = final_state(run_report(*(failed(n, f"{n}\x1b[2J", "\u202e" * 5000) for n in range(20)))).message
    assert message.startswith("20 of 20 files failed: 0\\x1b[2J: \\u202e")
    assert message.endswith("; and 10 more.")
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
