"""The output folder: its manifest is true, and topn replaces and deletes only what it lists."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from run_reports import counted, failed, run_report
from tests_support import wait_until

from tasks.errors import UsageError
from tasks.model.inputs import LocalFiles
from tasks.model.output_names import output_name
from tasks.report.folders import LocalFolder
from tasks.report.output_folder import find_files, outputs_in, write_outputs
from tasks.report.output_folder import read_manifest as read_manifest_of
from tasks.workload.base import Workload

SUFFIXES = (".txt", ".json")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


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


def read_manifest(folder):
    return read_manifest_of(LocalFolder(folder))


def named(report, name):
    """Return a report of a file with another name."""
    return replace(report, file=replace(report.file, name=name, path=f"/data/{name}", output=output_name(name)))


def write(folder, *files, run="run1", table=None, page=None, workload=None):
    report = run_report(*files, output_folder=str(folder))
    report = replace(report, workload=workload or report.workload)
    page = page and (LocalFolder(page), "report.html")
    return write_outputs(report, {"id": run}, lambda _: None, table, page).errors


def files_below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def entries(folder):
    return {entry.name: entry for entry in read_manifest(folder).entries}


def assert_true(folder):
    """Check that the folder has exactly the files that its manifest lists."""
    assert files_below(folder) == sorted(read_manifest(folder).paths)


def test_outputs_keep_their_folders(folder):
    assert write(folder, named(counted(1), "a.txt"), named(counted(2), "b/c.md"), failed(3, "bad.txt")) == []
    names = ["a_OUTPUT.json", "a_OUTPUT.txt", "b/c.md_OUTPUT.json", "b/c.md_OUTPUT.txt"]
    assert files_below(folder) == [*names, "manifest.json", "results.csv"]
    assert json.loads((folder / "b/c.md_OUTPUT.json").read_text())["file"] == "b/c.md"
    assert_true(folder)


def test_manifest_describes_each_input(folder):
    write(folder, named(counted(1), "a.txt"), counted(2, "same.txt", unchanged=True), failed(3, "bad.txt", "broken"))
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["status"], manifest["run"]["id"]) == ("failed", "run1")
    assert [(entry["name"], entry["status"], entry["error"]) for entry in manifest["inputs"]] == [
        ("a.txt", "done", None),
        ("same.txt", "unchanged", None),
        ("bad.txt", "failed", "broken"),
    ]
    assert manifest["inputs"][0] == {
        "name": "a.txt",
        "workload": "topn",
        "path": "/data/a.txt",
        "etag": "",
        "sha256": f"{1:064x}",
        "bytes": 10,
        "status": "done",
        "error": None,
        "outputs": ["a_OUTPUT.txt", "a_OUTPUT.json"],
        "run": "run1",
    }


def test_failed_file_loses_older_outputs(folder):
    write(folder, named(counted(1), "a.txt"), named(counted(2), "b.txt"))
    write(folder, named(failed(1), "a.txt"), run="run2")
    assert "a_OUTPUT.txt" not in files_below(folder)
    assert (entries(folder)["a.txt"].status, entries(folder)["a.txt"].outputs) == ("failed", ())
    assert (entries(folder)["b.txt"].status, entries(folder)["b.txt"].run) == ("done", "run1")
    assert_true(folder)


def test_runs_with_other_inputs_keep_entries(folder):
    write(folder, named(counted(1), "a.txt"))
    write(folder, named(counted(2), "b.txt"), run="run2")
    assert {name: entry.run for name, entry in entries(folder).items()} == {"b.txt": "run2", "a.txt": "run1"}
    assert (folder / "results.csv").read_text().count("a.txt") == 0
    assert_true(folder)


def test_other_workload_keeps_its_own_outputs(folder):
    lines = Workload(name="lines", command="true", outputs=("lines",))
    file = named(counted(1), "a.txt")
    other = replace(file, verdict=replace(file.result, outputs=type(file.result.outputs).of({"lines": b"3\n"})))
    write(folder, file)
    write(folder, other, workload=lines, run="run2")
    assert {"a_OUTPUT.txt", "a_OUTPUT.lines"} <= set(files_below(folder))
    assert_true(folder)


def test_output_that_changes_hands_has_one_owner(folder):
    write(folder, named(counted(1), "A.txt"))
    write(folder, named(counted(2), "a"), run="run2")
    assert list(entries(folder)) == ["a"]
    assert_true(folder)


def test_document_is_listed_once(folder, tmp_path):
    for _ in range(2):
        write(folder, counted(1), table=str(tmp_path / "all.jsonl"), page=tmp_path)
    write(folder, counted(1), run="run2")
    assert read_manifest(folder).documents == ("../all.jsonl", "../report.html", "results.csv")


@pytest.mark.parametrize("name", ["link/a", "link/new/a", "sub/link/a"])
def test_links_out_of_folder_are_not_followed(folder, outside, name):
    link = folder / name.partition("link")[0] / "link"
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(outside)
    errors = write(folder, named(counted(1), name), named(counted(2), "good"))
    assert errors[0] == f"{name}_OUTPUT (a link points outside the output folder)"
    assert list(outside.iterdir()) == []
    assert (folder / "good_OUTPUT.txt").exists()
    assert entries(folder)[name].status == "failed"


def test_dangling_link_creates_no_folder(folder, outside):
    (folder / "link").symlink_to(outside / "new")
    assert write(folder, named(counted(1), "link/a"))
    assert list(outside.iterdir()) == []


def test_link_loop_is_reported(folder):
    (folder / "link").symlink_to(folder / "link")
    assert write(folder, named(counted(1), "link/a"))[0].startswith("link/a_OUTPUT (")


def test_link_at_output_path_is_replaced(folder, outside):
    (outside / "precious").write_text("mine")
    (folder / "a_OUTPUT.txt").symlink_to(outside / "precious")
    assert write(folder, named(counted(1), "a")) == []
    assert (outside / "precious").read_text() == "mine"
    assert not (folder / "a_OUTPUT.txt").is_symlink()


def test_links_within_folder_are_followed(folder, outside):
    (folder / "real").mkdir()
    (folder / "link").symlink_to("real")
    (outside / "other").symlink_to(folder)
    assert write(outside / "other", named(counted(1), "link/a")) == []
    assert (folder / "real/a_OUTPUT.txt").exists()


def find(*inputs, **options):
    return find_files(LocalFiles(inputs=inputs, output_folder="output", **options), SUFFIXES)


@pytest.mark.parametrize(
    "path",
    ["manifest.json", "results.csv", "a_OUTPUT.txt", "a_OUTPUT.json", "all.csv", "sub", "sub/b_OUTPUT.txt"],
)
def test_file_of_user_is_never_replaced(folder, path):
    for name in ("data/a.txt", "data/sub/b.txt"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("text")
    (folder / path).parent.mkdir(exist_ok=True)
    (folder / path).write_text("mine")
    with pytest.raises(UsageError, match=f"`output/{path}` is (in the way|not a manifest)"):
        find("data", table="output/all.csv")
    assert (folder / path).read_text() == "mine"


def test_own_outputs_are_replaced(folder):
    Path("a.txt").write_text("text")
    write(folder, named(counted(1), "a.txt"), table="output/all.csv")
    assert [file.name for file in find("a.txt", table="output/all.csv")] == ["a.txt"]


def test_report_of_user_is_never_replaced(folder, tmp_path):
    Path("a.txt").write_text("text")
    for parent in (folder, tmp_path):
        (parent / "report.html").write_text("mine")
        with pytest.raises(UsageError, match=r"report\.html` is in the way"):
            find("a.txt", report_folder=str(parent))
        write(folder, named(counted(1), "a.txt"), page=parent)
        find("a.txt", report_folder=str(parent))


def test_unchanged_files_are_not_written_again(folder):
    files = [named(counted(1), "a.txt"), named(counted(2), "b.txt")]
    write(folder, *files)
    before = {path.name: path.stat().st_ino for path in folder.iterdir()}
    write(folder, files[0], named(counted(2, top=(("new", 1),)), "b.txt"))
    after = {path.name: path.stat().st_ino for path in folder.iterdir()}
    assert {name for name in after if after[name] == before[name]} == {"a_OUTPUT.txt", "a_OUTPUT.json"}


@pytest.mark.parametrize("content", ["{}", None])
def test_unusable_folder_fails_the_outputs(folder, content):
    """The run has ended, so this is not an error in its usage."""
    if content is None:
        folder.rmdir()
        folder.write_text("a file")
    else:
        (folder / "manifest.json").write_text(content)
    [error] = write(folder, named(counted(1), "a.txt"))
    assert error.startswith(f"{folder} (")


def test_input_is_never_replaced(folder):
    write(folder, named(counted(1), "a.txt"))
    Path("a.txt").write_text("text")
    with pytest.raises(UsageError, match="is in the way"):
        find("a.txt", "output/a_OUTPUT.txt")


def test_output_folder_cannot_be_a_file():
    Path("a.txt").write_text("text")
    Path("output").write_text("mine")
    with pytest.raises(UsageError, match="The output folder `output` is a file, or below one"):
        find("a.txt")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"table": "https://example.com/a.csv"}, "The table .* is not in Blob Storage"),
        ({"table": "a.xlsx"}, r"needs the suffix \.csv, \.jsonl, \.parquet"),
        ({"table": "output/results.csv"}, None),
    ],
)
def test_table_is_checked_first(folder, options, message):
    Path("a.txt").write_text("text")
    if message is None:
        find("a.txt", **options)
        return
    with pytest.raises(UsageError, match=message):
        find("a.txt", **options)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://127.0.0.1/out", "names no container"),
        ("az://", "names no container"),
        ("az://Out/x", "names the container `Out`"),
        ("ftp://x", "is not in Blob Storage"),
        ("http://example.blob.core.windows.net/out", "is not encrypted"),
        ("az://out/x?sv=1&sig=secret", "a signature"),
    ],
)
@pytest.mark.parametrize("option", ["output_folder", "report_folder"])
def test_other_urls_are_refused(url, message, option):
    Path("a.txt").write_text("text")
    with pytest.raises(UsageError, match=message) as refusal:
        find_files(LocalFiles(inputs=["a.txt"], **{option: url}), SUFFIXES)
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[]",
        '{"version": 2}',
        '{"version": 1, "run": {}, "status": "", "documents": [], "inputs": [{}]}',
        "[" * 100_000,
        None,
    ],
)
def test_damaged_manifest_is_refused(folder, content):
    if content is None:
        write(folder, named(counted(1), "a.txt"))
        content = (folder / "manifest.json").read_text().replace('"a_OUTPUT.txt"', '"../../precious"')
    (folder / "manifest.json").write_text(content)
    with pytest.raises(UsageError, match=r"`output/manifest\.json` is not a manifest of topn"):
        outputs_in(LocalFiles(inputs=[], output_folder="output"))


@pytest.mark.parametrize("output", [".", "results"])
def test_outputs_never_become_inputs(tmp_path, output):
    for name in ("a.txt", "notes.md", "deep/er/b.txt"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name)
    for night in range(10):
        local = LocalFiles(inputs=["**/*"], output_folder=output, table="all.csv")
        files = find_files(local, SUFFIXES)
        assert [file.name for file in files] == ["a.txt", "deep/er/b.txt", "notes.md"]
        reports = [named(counted(night, f"{number}"), file.name) for number, file in enumerate(files)]
        assert write(tmp_path / output, *reports, table="all.csv", page=tmp_path, run=f"run{night}") == []
        Path("report.html").write_text("page")


def test_own_folders_are_no_inputs_of_patterns(monkeypatch):
    monkeypatch.setenv("TOPN_STATE", "state")
    monkeypatch.setenv("TOPN_RESULTS", "known")
    for name in ("a.txt", "state/azure/x", "known/1.json", "statement.txt"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name)
    assert [file.name for file in find("**")] == ["a.txt", "statement.txt"]
    assert [file.name for file in find("known/*")] == ["1.json"]
    monkeypatch.setenv("TOPN_STATE", ".")
    assert [file.name for file in find("*.txt")] == ["a.txt", "statement.txt"]


class SlowWorkload(type(run_report().workload)):
    """A workload that stops in front of a document until a file exists."""

    def documents(self, file, result):
        if file.name == "b.txt":
            Path("reached").touch()
            wait_until(Path("continue").exists, "the test to continue")
        return super().documents(file, result)


def write_slowly(folder, run):
    workload = run_report().workload
    slow = SlowWorkload(**{name: getattr(workload, name) for name in workload.__dataclass_fields__})
    write(folder, named(counted(1), "a.txt"), named(counted(2), "b.txt"), run=run, workload=slow)


def test_killed_run_leaves_true_manifest(folder):
    write(folder, named(counted(9), "old.txt"), named(counted(2), "b.txt"))
    process = multiprocessing.get_context("fork").Process(target=write_slowly, args=(folder, "run2"))
    process.start()
    wait_until(Path("reached").exists, "the outputs to be written")
    os.kill(process.pid, signal.SIGKILL)
    process.join()

    manifest = read_manifest(folder)
    assert (manifest.status, manifest.run) == ("running", {"id": "run2"})
    assert {name: entry.status for name, entry in entries(folder).items()} == {
        "a.txt": "running",
        "b.txt": "running",
        "old.txt": "done",
    }
    assert set(files_below(folder)) <= manifest.paths

    assert write(folder, named(counted(3), "c.txt"), run="run3") == []
    assert entries(folder)["a.txt"].status == "running"
    assert write(folder, named(counted(1), "a.txt"), named(failed(2), "b.txt"), run="run4") == []
    assert_true(folder)


def test_second_run_waits_for_first(folder):
    process = multiprocessing.get_context("fork").Process(target=write_slowly, args=(folder, "run1"))
    process.start()
    wait_until(Path("reached").exists, "the outputs to be written")
    second = multiprocessing.get_context("fork").Process(
        target=write, args=(folder, named(failed(1), "a.txt")), kwargs={"run": "run2"}
    )
    second.start()
    Path("continue").touch()
    for each in (process, second):
        each.join()
        assert each.exitcode == 0
    assert {name: entry.run for name, entry in entries(folder).items()} == {"a.txt": "run2", "b.txt": "run1"}
    assert_true(folder)
