"""`topn log`, from the manifests that runs have stored."""

from __future__ import annotations

import json
import os
import time
import uuid
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from markdown_support import Shown
from run_reports import START, counted, failed, run_report, usage
from simulation.storage import InProcessSession, MemoryStorage

from tasks.azure import transport as azure_transport
from tasks.azure.blob import BlobAccount
from tasks.azure.settings import AzureSettings
from tasks.report.comparison import compare
from tasks.report.history import START_BYTES, History, previous_run, short_ids, with_history
from tasks.report.manifest import INPUTS, Entry, Manifest, parse_manifest
from tasks.report.markdown import notes, summary
from tasks.report.output_folder import write_outputs
from tasks.workload.result_files import ContainerFiles, FolderFiles
from tasks.workload.results_store import FolderStore

FIRST, SECOND, THIRD = (f"{number:08x}-0000-4000-8000-{number:012x}" for number in (0xA1000000, 0xB2000000, 0xB2000001))


def no_error(error):
    raise AssertionError from error


def about(run_id, *, hours=0, **parameters):
    started_at = START + timedelta(hours=hours)
    return {
        "id": run_id,
        "workload": "topn",
        "parameters": {"inputs": ["*.txt"], "num_words": 3, "refresh": False, **parameters},
        "started_at": started_at.isoformat(),
        "ended_at": (started_at + timedelta(seconds=65)).isoformat(),
        "usd": [1.5, 1.5],
    }


@pytest.fixture
def store(topn):
    """Return a function that stores the manifest of a run, and the folder of the manifests."""
    folder = Path(topn.environment["TOPN_STATE"]) / "results"

    def put(report, run):
        report = replace(report, output_folder=str(Path("out").absolute()))
        manifest, errors, _ = write_outputs(report, run, no_error)
        assert errors == []
        stored = with_history(manifest, report)
        FolderStore(folder, no_error).put_manifest(run["id"], stored.blocks())
        # The order of the runs is that of these times.
        at = time.time() + int(run["id"][:8], 16) / 1e6
        os.utime(folder / "runs" / f"{run['id']}.json", (at, at))
        return stored

    put.folder = folder / "runs"
    return put


@pytest.fixture
def two_runs(store):
    before = run_report(
        counted(1, "same.txt"), counted(2, "changed.txt"), counted(3, "gone.txt"), failed(4, "mended.txt")
    )
    changed = replace(counted(2, "changed.txt"), file=replace(counted(2, "changed.txt").file, sha256="f" * 64))
    after = run_report(
        counted(1, "same.txt", unchanged=True),
        changed,
        counted(4, "mended.txt"),
        failed(5, "broken.txt", message="It is not UTF-8 text"),
        usage=usage(),
    )
    return store(before, about(FIRST)), store(after, about(SECOND, hours=24, num_words=5))


def test_log_without_runs_says_so(topn):
    done = topn("log")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("No run is stored in ")


def test_log_lists_newest_run_first(topn, two_runs):
    head, _, *rows = topn("log").stdout.splitlines()
    assert [cell.strip() for cell in head.split("┃")] == [
        "run", "started", "state", "counted", "unchanged", "failed", "time", "cost",
    ]  # fmt: skip
    cells = [[cell.strip() for cell in row.split("│")] for row in rows]
    assert [row[0] for row in cells] == ["b2000000", "a1000000"]
    assert [row[2:] for row in cells] == [
        ["failed", "2", "1", "1", "1 min 05 s", "1.00 USD"],
        ["failed", "3", "0", "1", "1 min 05 s", "no cost"],
    ]


def test_limit_names_rest(topn, two_runs):
    done = topn("log", "--limit", "1", "--json")
    found = json.loads(done.stdout)
    assert (found["total"], [run["id"] for run in found["runs"]]) == (2, [SECOND])
    assert "1 older runs are not listed" in topn("log", "--limit", "1").stderr


@pytest.mark.parametrize("start", ["a1", "A1000000", FIRST, f"topn-{FIRST.replace('-', '')}-1795908087"])
def test_run_is_found_by_start(topn, two_runs, start):
    assert json.loads(topn("log", start, "--json").stdout)["id"] == FIRST


def test_ambiguous_or_unknown_run_is_refused(topn, two_runs, store):
    store(run_report(counted(1)), about(THIRD))
    for arguments, sentence in (
        (["c3"], "No run starts with `c3`. Run `topn log` without a name to list them."),
        ([FIRST.replace("-", "") + "x"], "No run starts with `a1"),
        (["b2"], "2 runs start with `b2`: b2000001, b2000000. Use more characters."),
        (["a1", "b2000000", "b2000001"], "compares two runs. Name one or two, not 3."),
        ([""], "is not a text with at least one character"),
    ):
        done = topn("log", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert sentence in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_log_shows_run(topn, two_runs):
    done = topn("log", "b2")
    lines = done.stdout.splitlines()
    assert lines[0] == "Run topn-0123456789abcdef0123456789abcdef-0: failed, 1 unchanged, 2 counted, 1 failed."
    assert "Cost of the nodes: 1.00 USD." in lines[1]
    assert "Words in all files: 3,000" in lines
    rows = [[cell.strip() for cell in line.split("│")] for line in lines if "│" in line]
    assert rows[0] == ["broken.txt", "-", "-", "failed", "It is not UTF-8 text"]
    assert ["changed.txt", "1,000", "100", "counted", ""] in rows
    assert ["plan", "2.0 s"] in rows
    assert ["num_words", "5"] in rows
    assert not any(row[0] == "refresh" for row in rows)


def test_log_shows_failed_files_of_many(topn, store):
    store(run_report(*(counted(number) for number in range(300)), failed(999, "bad.txt")), about(FIRST))
    done = topn("log", "a1")
    assert "bad.txt" in done.stdout
    assert "201 more files are listed with `--json`." in done.stderr
    assert len(json.loads(topn("log", "a1", "--json").stdout)["inputs"]) == 301


def test_log_compares_runs(topn, two_runs):
    done = topn("log", "a1", "b2")
    lines = done.stdout.splitlines()
    assert "Files: 1 new, 1 changed, 1 missing, 1 failed, 1 no longer failed, 2 with the same content." in lines
    assert [line for line in lines if line.startswith(("new:", "changed:", "missing:", "failed:", "no longer"))] == [
        "new: broken.txt",
        "changed: changed.txt",
        "missing: gone.txt",
        "failed: broken.txt (It is not UTF-8 text)",
        "no longer failed: mended.txt",
    ]
    rows = [[cell.strip() for cell in line.split("│")] for line in lines if "│" in line]
    assert ["num_words", "3", "5", "+2"] in rows
    assert ["cost of the nodes", "no cost", "1.00 USD", "+0.0000 USD"] in rows


def test_comparison_as_json(topn, two_runs):
    found = json.loads(topn("log", "a1", "b2", "--json").stdout)
    assert (found["new"], found["missing"], found["recovered"], found["same"]) == (
        ["broken.txt"], ["gone.txt"], ["mended.txt"], 2,
    )  # fmt: skip
    assert found["failed"] == [{"file": "broken.txt", "error": "It is not UTF-8 text"}]
    assert found["parameters"] == {"num_words": [3, 5]}


def entry(**changes):
    return Entry(
        **{
            "name": "a", "workload": "w", "path": "p", "etag": "", "sha256": "1", "bytes": 1, "status": "done",
            "error": None, "outputs": (), "run": "r", **changes,
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "is_changed"),
    [
        ({}, {"sha256": "2"}, True),
        ({}, {}, False),
        # A blob that failed has a hash of its address and ETag.
        ({"etag": "e", "sha256": "1"}, {"etag": "e", "sha256": "2", "status": "failed"}, False),
        ({"etag": "e"}, {"etag": "f"}, False),
        ({"etag": "e"}, {"etag": "f", "sha256": "2"}, True),
    ],
)
def test_changed_content_is_recognized(before, after, is_changed):
    runs = [Manifest(entries=(entry(**values),)) for values in (before, after)]
    assert bool(compare(*runs).changed) == is_changed


def test_previous_run_combines_folder_and_store(two_runs, store):
    """The entries of earlier runs with other inputs do not belong to it."""
    files = FolderFiles(store.folder.parent)
    folder = parse_manifest(Path("out/manifest.json").read_bytes())
    assert "gone.txt" in {entry.name for entry in folder.entries}
    found = previous_run(folder, THIRD, files)
    assert [entry.name for entry in found.entries] == ["same.txt", "changed.txt", "mended.txt", "broken.txt"]
    assert (found.run["figures"], found.run["cost"]) == ({"Words in all files": "3,000"}, "1.00 USD")
    (store.folder / f"{SECOND}.json").unlink()
    found = previous_run(folder, THIRD, files)
    assert (found.run["parameters"]["num_words"], "figures" in found.run) == (5, False)


@pytest.mark.parametrize("run_id", [None, "", THIRD, "../../precious"])
def test_first_attempt_or_retry_has_no_previous_run(tmp_path, run_id):
    (tmp_path / "precious.json").write_bytes(b"".join(Manifest(run={"id": "x", "figures": {"a": "1"}}).blocks()))
    found = previous_run(
        Manifest(run={} if run_id is None else {"id": run_id}), THIRD, FolderFiles(tmp_path / "results")
    )
    assert found is None or "figures" not in found.run


def test_damaged_manifest_hides_no_other(topn, two_runs, store):
    (store.folder / f"{SECOND}.json").write_text("{")
    (store.folder / "readme.txt").write_text("mine")
    done = topn("log")
    assert done.returncode == 0
    assert "a1000000" in done.stdout
    assert f"runs/{SECOND}.json in the results store cannot be read" in done.stderr
    done = topn("log", "b2")
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot be read" in done.stderr


def test_manifest_of_older_version_is_listed(topn, store):
    """Its run has no counts, times and cost."""
    store.folder.mkdir(parents=True)
    blocks = Manifest(run={"id": FIRST, "started_at": "yesterday"}, status="completed", entries=(entry(),)).blocks()
    (store.folder / f"{FIRST}.json").write_bytes(b"".join(blocks))
    assert "a1000000 │ -       │ completed │       - │" in topn("log").stdout
    for arguments in (["a1"], ["a1", "a1"]):
        assert topn("log", *arguments).returncode == 0


def test_unreadable_store_is_one_sentence(topn):
    Path("file").write_text("")
    done = topn("log", TOPN_RESULTS="file")
    assert (done.returncode, done.stderr) == (2, "The results store file cannot be read: Not a directory.\n")


def test_hostile_texts_are_printable(topn, store):
    hostile = "\x1b[2J[red]x"
    store(run_report(counted(1, hostile), failed(2, "b.txt", message=hostile)), about(FIRST, encoding=hostile))
    for arguments in (["log"], ["log", "a1"], ["log", "a1", "a1"]):
        done = topn(*arguments)
        assert done.returncode == 0
        assert "\x1b" not in done.stdout


def test_own_workload_keeps_its_columns(store):
    class Lines(type(run_report().workload)):
        def columns(self, file, result):
            return {"lines": 7, "first": "x" * 500, "top": [("a", "1")], "file": "a.txt"}

    report = run_report(counted(1))
    workload = Lines(**{field: getattr(report.workload, field) for field in report.workload.__dataclass_fields__})
    stored = store(replace(report, workload=workload), about(FIRST))
    assert stored.entries[0].cells["lines"] == 7
    assert len(stored.entries[0].cells["first"]) == 80
    assert stored.entries[0].cells.keys() == {"lines", "first", "file"}


def test_error_of_workload_costs_only_its_part(store):
    class Broken(type(run_report().workload)):
        def columns(self, file, result):
            return {"words": {"file1.txt": 7}[file.name]}

        def figures(self, results):
            raise ZeroDivisionError

    report = run_report(counted(1), counted(2), counted(3))
    workload = Broken(**{field: getattr(report.workload, field) for field in report.workload.__dataclass_fields__})
    errors = []
    broken = replace(report, workload=workload, log_unexpected=lambda *error: errors.append(error))
    manifest = Manifest(run=about(FIRST), entries=tuple(entry(name=f"file{number}.txt") for number in (1, 2, 3)))
    stored = with_history(manifest, broken)
    assert [each.cells for each in stored.entries] == [{"words": 7}, {}, {}]
    assert (stored.run["figures"], stored.run["files"]) == ({}, {"done": 3})
    # Each part is reported once: in the log of the run, on the pages and on the terminal.
    sentences = [
        "`figures` is missing, because the workload topn raised ZeroDivisionError.",
        "`columns` of file2.txt is missing, because the workload topn raised KeyError: 'file2.txt'.",
    ]
    assert [(type(error), sentence) for error, sentence in errors] == list(
        zip([ZeroDivisionError, KeyError], sentences, strict=True)
    )
    assert notes(broken)[:2] == sentences
    assert all(sentence in Shown(summary(broken)).text for sentence in sentences)
    assert len(errors) == len(sentences)


def test_manifest_of_output_folder_has_no_cells(two_runs):
    written = parse_manifest(Path("out/manifest.json").read_bytes())
    assert all(entry.cells == {} for entry in written.entries)
    assert b"cells" not in Path("out/manifest.json").read_bytes()
    assert "steps" not in written.run


def test_short_ids_are_unique():
    ids = [str(uuid.UUID(int=number << 64 | 1)) for number in (1, 2, 3, 2**62)] + ["0" * 32]
    found = short_ids(ids)
    assert len(set(found.values())) == len(ids)
    for run_id, short in found.items():
        assert [other for other in ids if other.replace("-", "").startswith(short)] == [run_id]
    assert short_ids([FIRST]) == {FIRST: "a1000000"}


class CountedFiles(FolderFiles):
    """Files whose reads are recorded."""

    def __init__(self, folder):
        super().__init__(folder)
        self.read_bytes = 0

    def read(self, name):
        for block in super().read(name):
            self.read_bytes += len(block)
            yield block

    def read_start(self, name, max_bytes):
        start = super().read_start(name, max_bytes)
        self.read_bytes += len(start)
        return start


def test_listing_reads_no_inputs(tmp_path):
    """A list of 1,000 runs reads the starts of the newest 20."""
    files = CountedFiles(tmp_path)
    entries = tuple(entry(name=f"{number}.txt") for number in range(2000))
    blocks = list(Manifest(run=about(FIRST), status="completed", entries=entries).blocks())
    large = [b"".join(Manifest(run=about(FIRST, inputs=["x" * START_BYTES]), status="failed").blocks())]
    ids = [str(uuid.UUID(int=number)) for number in range(1000)]
    for number, run_id in enumerate(ids):
        files.write(f"runs/{run_id}.json", large if number == 999 else [*blocks[:1], b"]}"] if number < 900 else blocks)
        os.utime(tmp_path / f"runs/{run_id}.json", (number, number))
    listing = History(files).newest(20)
    assert [run.status for run in listing.runs] == ["failed"] + ["completed"] * 19
    assert len(listing.short_ids) == 1000
    assert INPUTS in blocks[0]
    assert files.read_bytes < 23 * START_BYTES


def test_runs_in_container_are_found(monkeypatch):
    storage = MemoryStorage("account", "a2V5", lambda: START)
    monkeypatch.setattr(azure_transport, "Session", lambda: InProcessSession(storage.answer))
    account = BlobAccount(
        AzureSettings(storage_endpoint=storage.endpoint, storage_account="account", storage_key="a2V5")
    )
    account.create_container("results", {})
    files = ContainerFiles(account, "results", "kept/")
    for run_id in (FIRST, SECOND):
        files.write(f"runs/{run_id}.json", Manifest(run=about(run_id), entries=(entry(),)).blocks())
    history = History(files)
    assert {run.run["id"] for run in history.newest(20).runs} == {FIRST, SECOND}
    assert history.find("b2").entries == (entry(),)
