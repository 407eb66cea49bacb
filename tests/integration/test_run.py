"""`topn run` with the real flow, a real Prefect server and the local Azure."""

from __future__ import annotations

import json
import os
import re
import uuid
from itertools import pairwise
from pathlib import Path

import pytest
from run_files import HOSTILE_NAMES
from tests_support import independent_count, new_container

from tasks.azure.accounts import blob_account
from tasks.report.manifest import Manifest
from tasks.workload.results_store import results_store

SHARED = pytest.mark.xdist_group("shared_runs")


def write(name, content):
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return name


@SHARED
def test_run_counts_sample_texts(completed_run):
    found = completed_run.found
    texts = sorted(completed_run.folder.glob("data/*.txt"))
    assert (found["state"], found["counted"], found["unchanged"], found["failed"]) == ("completed", len(texts), 0, 0)
    for path, file in zip(texts, found["files"], strict=True):
        words, distinct, top = independent_count(path.read_text("utf-8"), 5)
        assert file["file"] == path.name
        assert (file["words"], file["distinct"], file["top"]) == (words, distinct, top)
        assert file["bytes"] == path.stat().st_size
        results = completed_run.folder / "results"
        written = json.loads((results / f"{path.stem}_OUTPUT.json").read_text())
        assert written == {key: value for key, value in file.items() if key != "status"}
        text = (results / f"{path.stem}_OUTPUT.txt").read_text()
        assert re.search(rf"^ *{top[0][1]}  {re.escape(top[0][0])}$", text, re.MULTILINE)
        assert re.search(rf"^Job: +{found['run']}$", text, re.MULTILINE)


@SHARED
def test_runs_leave_no_resources_behind(completed_run, repeated_run, failed_run, packed_run):
    assert [run.leftovers for run in (completed_run, repeated_run, failed_run, packed_run)] == [set()] * 4


@SHARED
def test_run_writes_report_and_prints_path(completed_run):
    assert "The report is page/report.html" in completed_run.done.stderr
    assert "hamlet.txt" in (completed_run.folder / "page/report.html").read_text()


@SHARED
def test_listings_of_batch_tasks_never_overlap(completed_run):
    listings = sorted(
        (record.started_at, record.ended_at)
        for record in completed_run.requests
        if record.method == "GET" and record.path.endswith("/tasks")
    )
    assert listings
    for (_, ended_at), (started_at, _) in pairwise(listings):
        assert started_at >= ended_at
    submissions = [record for record in completed_run.requests if record.path.endswith("/addtaskcollection")]
    # The last one is of the merge.
    assert len(submissions) == len(completed_run.found["files"]) + 1


@SHARED
def test_second_run_counts_and_creates_nothing(completed_run, repeated_run):
    assert (repeated_run.found["counted"], repeated_run.found["unchanged"]) == (0, len(completed_run.found["files"]))
    before = (completed_run.folder / "results/sonnets_OUTPUT.txt").read_text()
    assert (repeated_run.folder / "results/renamed_OUTPUT.txt").read_text() == before
    assert [record for record in repeated_run.requests if record.method == "POST"] == []


@SHARED
def test_bad_files_fail_alone_with_reasons(failed_run):
    found = failed_run.found
    files = {file["file"]: file for file in found["files"]}
    assert list(files) == ["good.txt", "latin1.txt", "nul.txt", "empty.txt", "blank.txt", "b|`ad.txt"]
    assert (found["state"], found["counted"], found["failed"]) == ("failed", 3, 3)
    assert files["good.txt"]["top"] == [["a", 2], ["b", 1]]
    assert (files["empty.txt"]["words"], files["empty.txt"]["top"]) == (0, [])
    assert files["blank.txt"]["words"] == 0
    for name, offset in (("latin1.txt", 1), ("nul.txt", 7), ("b|`ad.txt", 0)):
        error = files[name]["error"]
        assert (error["category"], error["exit_code"]) == ("input", 1)
        assert name in error["message"]
        assert f"offset {offset}" in error["message"]
    assert (failed_run.folder / "results/good_OUTPUT.txt").exists()
    assert not (failed_run.folder / "results/nul_OUTPUT.txt").exists()


@SHARED
def test_hostile_names_are_not_interpreted(packed_run):
    """Field report 12: Batch starts no shell, and our shell receives no user-defined names."""
    *files, bad = packed_run.found["files"]
    assert (packed_run.found["counted"], packed_run.found["failed"]) == (len(HOSTILE_NAMES), 1)
    assert [file["file"] for file in files] == HOSTILE_NAMES
    assert [file["top"] for file in files] == [[[f"w{number}", number + 1]] for number in range(len(HOSTILE_NAMES))]
    assert (bad["file"], bad["error"]["category"]) == ("bad.txt", "input")
    folder = packed_run.folder
    others = ["corpus.json", "corpus.txt", "manifest.json", "results.csv"]
    assert len(list((folder / "../out").iterdir())) == 2 * len(HOSTILE_NAMES) + len(others)
    assert sorted(os.listdir(folder / "..")) == ["in", "out"]
    assert sorted(os.listdir(folder)) == sorted([*HOSTILE_NAMES, "bad.txt"])


@SHARED
def test_packed_files_share_batch_tasks(packed_run):
    texts = [path.read_text() for path in (packed_run.folder / "../out").glob("*.txt")]
    assert len({line for text in texts for line in text.splitlines() if line.startswith("Batch task:")}) == 3


@SHARED
def test_second_run_counts_only_failed_files(packed_run, monkeypatch, tmp_path):
    monkeypatch.chdir(packed_run.folder)
    inputs = ("--", *HOSTILE_NAMES, "bad.txt")
    planned = packed_run.topn("plan", *inputs)
    assert planned.stdout.startswith("1 new, 18 unchanged, 0 invalid.\nA run would add 1 Batch task,")

    again = packed_run.topn("run", "--output", "../out", "--report", str(tmp_path), *inputs)

    page = (tmp_path / "report.html").read_text()
    assert re.search(r"<tr class=failed><td>bad\.txt<td>failed<td><td colspan=3>is not UTF-8 text", page)
    assert "no file differs; 19 with the same content." in page
    assert again.returncode == 1
    assert "failed: bad.txt is not UTF-8 text" in again.stdout
    assert "0 counted, 18 unchanged, 1 failed" in again.stdout
    assert "Traceback" not in again.stderr + again.stdout


def test_kept_resources_have_pool_file_settings(topn, azure_settings, assert_nothing_left):
    from tasks.azure.accounts import batch_account, blob_account  # noqa: PLC0415 - after the environment is set

    Path("pool.yaml").write_text(
        "start_commands: [touch $AZ_BATCH_NODE_SHARED_DIR/mine]\n"
        "metadata: {costCenter: '42'}\n"
        "extra: {taskSchedulingPolicy: {nodeFillType: pack}}\n"
    )

    keep = ("--keep-containers", "--keep-job", "--keep-pool")
    found = topn.json(write("a.txt", b"kept"), "--pool", "pool.yaml", *keep)

    name = found["run"]
    account = batch_account()
    jobs, pools = account.list_jobs(name), account.list_pools(name)
    containers = blob_account().list_containers(name)
    pool = account._client.get_pool(name).as_dict()
    account.delete_jobs_and_pools([name], [name], 10)
    for container in containers:
        blob_account().delete_container(container)
    assert found["counted"] == 1
    assert [job.job_id for job in jobs] == [pool.pool_id for pool in pools] == [name]
    assert sorted(containers) == [f"{name}-app", f"{name}-in", f"{name}-out"]
    assert all(run.metadata["owner"] == "topn" and "expires_at" in run.metadata for run in containers.values())
    assert "$AZ_BATCH_NODE_SHARED_DIR/mine" in pool["startTask"]["commandLine"]
    assert {"name": "costCenter", "value": "42"} in pool["metadata"]
    assert pool["taskSchedulingPolicy"]["nodeFillType"] == "Pack"
    assert_nothing_left()


def test_ask_deletes_only_confirmed_resources(topn, azure_settings):
    from tasks.azure.accounts import batch_account  # noqa: PLC0415 - after the environment is set

    done = topn("run", "--ask", write("a.txt", b"asked"), stdin="n\ny\n")

    assert done.returncode == 0, done.stderr
    assert "Delete the job?" in done.stderr
    assert "Delete the pool?" in done.stderr
    name = re.search(r"topn-[0-9a-f]{32}-\d+", done.stdout).group()
    jobs, pools = batch_account().list_jobs(name), batch_account().list_pools(name)
    batch_account().delete_jobs_and_pools([name], [name], 10)
    assert (len(jobs), len(pools)) == (1, 0)


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"TOPN_BATCH_KEY": "d3Jvbmc="}, "AuthenticationFailed"),
        ({"TOPN_BATCH_ENDPOINT": "http://127.0.0.1:1"}, "no response"),
        ({"PREFECT_API_URL": "http://127.0.0.1:1/api"}, "at http://127.0.0.1:1/api does not respond"),
    ],
    ids=["key", "azure", "prefect"],
)
def test_unusable_services_fail_at_once(topn, assert_nothing_left, variables, sentence):
    done = topn("run", write("a.txt", b"x"), **variables)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert_nothing_left()


def test_impossible_pool_is_rejected_before_creation(topn, assert_nothing_left):
    Path("pool.yaml").write_text("extra: {vmsize: x}\n")
    done = topn("run", write("a.txt", b"one"), "--pool", "pool.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "`extra` of the pool contains properties that the Batch REST API does not have: vmsize."
    ]
    assert_nothing_left()


def test_log_shows_what_run_did(topn):
    write("good.txt", b"one two two")
    write("bad.txt", b"caf\xe9")
    options = ["--nodes", "3", "--spot-nodes", "1", "--slots-per-node", "2", "--vm-size", "standard_d2s_v3"]
    limits = ["--timeout-minutes", "45", "--task-minutes", "30", "--max-usd", "2", "--usd-per-node-hour", "0.5"]
    run = topn.json("good.txt", "bad.txt", *options, *limits, status=1)["run"]
    found = json.loads(topn("log", run, "--json").stdout)
    assert (found["name"], found["state"], found["files"]) == (run, "failed", {"done": 1, "failed": 1})
    given = dict(zip([*options, *limits][::2], [*options, *limits][1::2], strict=True))
    shown = {f"--{name.replace('_', '-')}": value for name, value in found["parameters"].items()}
    assert {option: f"{shown[option]:g}" if option != "--vm-size" else shown[option] for option in given} == given
    assert found["figures"] == {"Words in all files": "3"}
    assert {"stage", "submit", "collect"} <= found["steps"].keys()
    assert found["cost"] == "no cost (local)"
    good, bad = found["inputs"]
    assert good["cells"] == {"words": 3, "distinct": 2}
    assert "is not UTF-8" in bad["error"]

    write("bad.txt", b"mended")
    topn.json("good.txt", "bad.txt")
    assert [json.loads(topn("log", "--json").stdout)["total"]] == [2]
    newest = json.loads(topn("log", "--json").stdout)["runs"][0]["id"]
    lines = topn("log", run, newest).stdout.splitlines()
    assert {"changed: bad.txt (words - → 1; distinct - → 1)", "no longer failed: bad.txt"} <= set(lines)


def test_log_reads_results_container(topn, azure_settings):
    manifest = Manifest(run={"id": str(uuid.uuid4())}, status="completed")
    with new_container(blob_account(), "history") as container:
        location = f"az://{container}/kept"
        with topn.environ(TOPN_RESULTS=location):
            results_store("test", print).put_manifest(manifest.run["id"], manifest.blocks())
        done = topn("log", manifest.run["id"][:13], "--json", TOPN_RESULTS=location)
    assert json.loads(done.stdout)["state"] == "completed"
    done = topn("log", TOPN_RESULTS="az://missing-container")
    assert (done.returncode, done.stdout) == (2, "")
    assert "names the container `missing-container`, which does not exist" in done.stderr
