"""Hostile file names, file contents and blobs are never executed, and lose no results."""

from __future__ import annotations

import json
import uuid
from contextlib import suppress
from pathlib import Path

import pytest
from azure.core.exceptions import AzureError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from run_reports import PRICE
from tests_support import independent_count

from tasks.errors import UsageError
from tasks.model.chunks import Chunk
from tasks.model.inputs import LocalFiles
from tasks.model.pool import PoolOptions
from tasks.model.verdict import FileReport
from tasks.report.folders import LocalFolder
from tasks.report.html import write_page
from tasks.report.markdown import failures, results, summary
from tasks.report.model import RunReport
from tasks.report.output_folder import find_files, write_outputs
from tasks.steps.collect import collect_chunk
from tasks.steps.plan import create_plan
from tasks.steps.stage import stage_chunk
from tasks.steps.submit import submit_chunk
from tasks.workload.results_store import FolderStore

# Each creates a file in the current folder if a shell interprets it.
COMMANDS = [
    "$(touch canary)",
    "`touch canary`",
    ";touch canary;",
    "'; touch canary #",
    '"; touch canary #',
    "&touch canary&",
]
NAMES = [
    *COMMANDS,
    "-rf",
    "--help",
    "-",
    "~",
    "~root",
    "*",
    "?",
    "[a-z]",
    "{a,b}",
    "!",
    "%s%n",
    "%2e%2e%2f",
    "..\\..\\x",
    "...",
    " ",
    "a b",
    "a\nb",
    "a\rb",
    "\t",
    "\x1b[2J",
    "\u202etxt.exe",
    "\u200b",
    "\ufeff",
    "CON",
    "nul.txt",
    "COM1",
    "a:b",
    "a?b",
    "a",
    "\uff41",
    "\u2163",
    "é",
    "nfd/e\u0301",
    "ß",
    "s",
    "İ",
    "<b>",
    "a|b",
    "&amp;",
    "x" * 255,
    "é" * 127,
    "a_OUTPUT",
    "b_OUTPUT.txt",
    "input",
    "results.tar",
    "command.sh",
]
CONTENTS = [
    *(command.encode() for command in COMMANDS),
    b"",
    b"\0",
    b"\xff",
    b"one two two",
    b"<script>",
    b"\n../../x\n",
]

letters = st.characters(exclude_characters="/\0", codec="utf-8")
names = st.one_of(st.sampled_from(NAMES), st.text(letters, min_size=1, max_size=20)).filter(
    lambda name: name not in {".", ".."} and len(name.encode()) <= 255
)
paths = st.lists(names, min_size=1, max_size=3).map("/".join)
contents = st.one_of(st.sampled_from(CONTENTS), st.binary(max_size=50), st.text(max_size=50).map(str.encode))


def write(folder, files):
    """Write files below a folder, and skip those that the file system rejects; return all paths."""
    for name, content in files.items():
        with suppress(OSError):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
    return sorted(str(path) for path in folder.rglob("*") if path.is_file())


def litter(blobs, container):
    """Upload blobs that no Batch task of a run writes to the output container. Azurite rejects some names."""
    for name in ("../../etc/passwd", "/absolute", "x" * 1024, "a\nb", "$(touch canary)", "t/../../input_OUTPUT.json"):
        with suppress(AzureError):
            blobs._service.get_blob_client(container, name).upload_blob(b"evil", overwrite=True, retry_total=0)


def expected_of(content):
    """Return the expected counts of a content, or None if it is not text."""
    try:
        return None if b"\0" in content else independent_count(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return None


@pytest.fixture
def pool_options():
    return PoolOptions(pool_id=None, vm_size="standard_d2s_v3", nodes=1, spot_nodes=0, slots_per_node=8)


@pytest.fixture
def run_all(batch, blobs, run, workload, parts, watch_chunk):
    """Return a function that runs all steps for files and returns the report."""
    containers, job = parts

    def do(inputs, folder, files_per_task):
        store = FolderStore(folder / "store")
        local = LocalFiles(inputs=inputs, roots=[str(folder / "in")], output_folder=str(folder / "output"))
        files = find_files(local, workload.suffixes)
        plan = create_plan(files, workload, store, files_per_task=files_per_task)
        packs = tuple(pack for chunk in plan.chunks for pack in chunk.packs)
        chunk = Chunk(first=1, total=plan.new_file_count, packs=packs)
        staged = stage_chunk(blobs, chunk, workload, containers)
        submitted = submit_chunk(batch, blobs, run, staged, job, workload, containers)
        finished = watch_chunk(submitted, job, containers)
        litter(blobs, containers.outputs)
        verdicts = collect_chunk(blobs, store, finished, job, workload, containers)
        commands = {task.command_line for task in batch._client.list_tasks(job.job_id)}
        assert len(commands) <= 2, "command lines depend on more than the kind of Batch task"
        return RunReport(
            run_name=run.name,
            workload=workload,
            files=tuple(FileReport(file=file, verdict=verdicts[file.content_key]) for file in plan.files),
            price=PRICE,
            output_folder=str(folder / "output"),
        )

    return do


def everything_below(folder, *, but):
    return {path for path in folder.rglob("*") if path.parts[: len(but.parts)] != but.parts}


def assert_harmless(report, files, folder):
    """Write the outputs and reports of a run; check that each file has its result and nothing else was written."""
    output = folder / "output"
    before = everything_below(folder, but=output)
    assert write_outputs(report, {"id": "run"}, lambda _: None)[1] == []
    write_page(report, LocalFolder(output))
    for text in (summary(report), results(report), failures(report)):
        text.encode()
    assert everything_below(folder, but=output) == before
    assert not [*Path().rglob("canary"), *folder.rglob("canary")]
    for file in report.files:
        expected = expected_of(Path(file.file.path).read_bytes())
        assert (file.result is None) == (expected is None), file
        if expected is not None:
            found = json.loads((output / f"{file.file.output}.json").read_text())
            assert found["file"] == file.file.name
            assert (found["words"], found["distinct"], found["top"]) == expected
    written = [path for path in output.rglob("*") if path.is_file()]
    # Two files per result, the manifest, the table and the page.
    assert len(written) == 2 * len(report.with_result) + 3


@settings(max_examples=4, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(paths, contents, min_size=1, max_size=25), st.sampled_from([1, 4]))
def test_arbitrary_files_get_their_own_results(run_all, tmp_path, files, files_per_task):
    folder = tmp_path / uuid.uuid4().hex
    inputs = write(folder / "in", files)
    try:
        report = run_all(inputs, folder, files_per_task)
    except UsageError:
        # Two names clash. Nothing was created.
        assert not (folder / "output").exists()
        return
    assert_harmless(report, files, folder)


@pytest.mark.parametrize("files_per_task", [1, 20])
def test_hostile_names_get_their_own_results(run_all, tmp_path, files_per_task):
    files = {name: CONTENTS[number % len(CONTENTS)] + b" %d" % number for number, name in enumerate(NAMES)}
    files |= {f"in {name}/{name}": name.encode() for name in COMMANDS}
    # Longer than the maximum length of a blob name.
    files["/".join(["y" * 200] * 6)] = b"deep"
    inputs = write(tmp_path / "in", files)
    assert len(inputs) == len(files)
    assert_harmless(run_all(inputs, tmp_path, files_per_task), files, tmp_path)


def test_linked_input_is_followed(run_all, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "real.txt").write_text("one")
    (tmp_path / "in" / "link.txt").symlink_to(tmp_path / "real.txt")
    report = run_all([str(tmp_path / "in" / "link.txt")], tmp_path, 1)
    assert_harmless(report, {}, tmp_path)
    assert report.files[0].file.name == "link.txt"
