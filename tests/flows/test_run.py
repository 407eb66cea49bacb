"""`topn run`, end to end: the real flow, a real Prefect server, the local Azure."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from tests_support import REPOSITORY, independent_count, processes_of, wait_until

from flows.services import PrefectServer


@pytest.fixture
def data():
    """The sample texts, in the current folder."""
    shutil.copytree(REPOSITORY / "data", "data")
    return sorted(str(path) for path in Path("data").glob("*.txt"))


def write(name, content):
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return name


def test_the_sample_texts_are_counted_and_nothing_is_left(topn, data, nothing_left):
    found = topn.json(*data, "-n", "5")

    assert (found["state"], found["counted"], found["unchanged"], found["failed"]) == ("completed", len(data), 0, 0)
    for name, file in zip(data, found["files"], strict=True):
        words, distinct, top = independent_count(Path(name).read_text("utf-8"), 5)
        assert file["file"] == Path(name).name
        assert (file["words"], file["distinct"], file["top"]) == (words, distinct, top)
        assert file["bytes"] == Path(name).stat().st_size
        written = json.loads(Path("results", f"{Path(name).stem}_OUTPUT.json").read_text())
        assert written == {key: value for key, value in file.items() if key != "status"}
        text = Path("results", f"{Path(name).stem}_OUTPUT.txt").read_text()
        assert re.search(rf"^ *{top[0][1]}  {re.escape(top[0][0])}$", text, re.MULTILINE)
        assert re.search(rf"^Job: +{found['run']}$", text, re.MULTILINE)
    nothing_left()


def test_a_second_run_counts_nothing_and_creates_nothing(topn, data, local_azure):
    topn.json(*data)
    before = Path("results/sonnets_OUTPUT.txt").read_text()
    shutil.rmtree("results")
    Path("data/sonnets.txt").rename("data/renamed.txt")
    seen = len(local_azure.batch.requests)

    found = topn.json(*(str(path) for path in Path("data").glob("*.txt")))

    assert (found["counted"], found["unchanged"]) == (0, len(data))
    assert Path("results/renamed_OUTPUT.txt").read_text() == before
    made = [record for record in list(local_azure.batch.requests)[seen:] if record.method == "POST"]
    assert made == []


def test_bad_files_fail_alone_each_with_its_reason(topn, nothing_left):
    names = [
        write("good.txt", b"a b a"),
        write("latin1.txt", "d\xe9j\xe0".encode("latin-1")),
        write("nul.txt", b"one two\0"),
        write("empty.txt", b""),
        write("blank.txt", b" \n\t... --- !\n"),
    ]

    found = topn.json(*names, status=1)

    files = {file["file"]: file for file in found["files"]}
    assert list(files) == names
    assert (found["state"], found["counted"], found["failed"]) == ("failed", 3, 2)
    assert files["good.txt"]["top"] == [["a", 2], ["b", 1]]
    assert (files["empty.txt"]["words"], files["empty.txt"]["top"]) == (0, [])
    assert files["blank.txt"]["words"] == 0
    for name, offset in (("latin1.txt", 1), ("nul.txt", 7)):
        error = files[name]["error"]
        assert (error["category"], error["exit_code"]) == ("input", 1)
        assert name in error["message"]
        assert f"offset {offset}" in error["message"]
    assert Path("results/good_OUTPUT.txt").exists()
    assert not Path("results/nul_OUTPUT.txt").exists()
    nothing_left()


def test_files_that_share_batch_tasks_have_each_their_own_result(topn, local_azure, nothing_left):
    names = [write(f"{number}.txt", f"word {number}".encode()) for number in range(7)]
    bad = write("bad.txt", b"\xff")

    found = topn.json(*names, bad, "--files-per-task", "3", status=1)

    assert (found["counted"], found["failed"]) == (7, 1)
    assert [file["top"] for file in found["files"][:-1]] == [[[str(n), 1], ["word", 1]] for n in range(7)]
    assert found["files"][-1]["error"]["category"] == "input"
    texts = [Path(f"results/{number}_OUTPUT.txt").read_text() for number in range(7)]
    assert len({line for text in texts for line in text.splitlines() if line.startswith("Batch task:")}) == 3
    # Only what failed is worked on again.
    again = topn("plan", *names, bad)
    assert again.stdout.startswith("1 new, 7 unchanged, 0 refused.\nA run would add 1 Batch task,")
    nothing_left()


def test_a_failed_run_names_the_failed_files_for_people(topn):
    done = topn("run", write("good.txt", b"a"), write("bad.txt", b"\xff"))
    assert done.returncode == 1
    assert "bad.txt failed: bad.txt is not UTF-8 text" in done.stdout
    assert "1 counted, 0 unchanged, 1 failed" in done.stdout
    assert "Traceback" not in done.stderr + done.stdout


HOSTILE_NAMES = [
    "with space.txt",
    "'single'.txt",
    '"double".txt',
    "$(touch pwned).txt",
    "`touch pwned`.txt",
    "a;touch pwned;.txt",
    "&& touch pwned.txt",
    "-n.txt",
    "--output=pwned.txt",
    "line\nbreak.txt",
    "grüße-日本語-🎉.txt",
    "[brackets].txt",
    "[red]markup.txt",
    "percent%41.txt",
    "back\\slash.txt",
    "#fragment?query.txt",
    "x" * 251 + ".txt",
    "{braces}.txt",
]


def test_no_name_is_ever_run_or_misread(topn, nothing_left):
    """Field report 12: Batch starts no shell, and ours is given no name of a user's."""
    folder = Path("in")
    folder.mkdir()
    for number, name in enumerate(HOSTILE_NAMES):
        (folder / name).write_text(f"w{number} " * (number + 1))

    os.chdir(folder)
    found = topn.json("--output", "../out", "--", *HOSTILE_NAMES)

    assert [file["file"] for file in found["files"]] == HOSTILE_NAMES
    assert [file["top"] for file in found["files"]] == [[[f"w{n}", n + 1]] for n in range(len(HOSTILE_NAMES))]
    outputs = list(Path("../out").iterdir())
    assert len(outputs) == 2 * len(HOSTILE_NAMES)
    assert sorted(os.listdir("..")) == ["in", "out"]
    assert sorted(os.listdir()) == sorted(HOSTILE_NAMES)
    nothing_left()


def test_files_of_one_name_in_two_folders_keep_apart_and_one_given_twice_is_counted_once(topn):
    """Field report 33: no file overwrites another's."""
    names = [write("x/a.txt", b"one"), write("y/a.txt", b"two"), "x/../x/a.txt"]
    found = topn.json(*names)
    assert [(file["file"], file["top"]) for file in found["files"]] == [
        ("x/a.txt", [["one", 1]]),
        ("y/a.txt", [["two", 1]]),
    ]
    assert Path("results/x/a_OUTPUT.json").exists()
    assert Path("results/y/a_OUTPUT.json").exists()


def test_case_is_folded_when_asked(topn):
    name = write("a.txt", "The the STRASSE straße".encode())
    assert topn.json(name, "--ignore-case")["files"][0]["top"] == [["strasse", 2], ["the", 2]]


def test_what_is_to_be_kept_stays_and_is_told_by_name(topn, azure_settings):
    from tasks.accounts import batch_account, blob_account  # noqa: PLC0415 - after the environment is set

    found = topn.json(write("a.txt", b"kept"), "--keep-containers", "--keep-job", "--keep-pool")

    name = found["run"]
    jobs, pools = batch_account().jobs(name), batch_account().pools(name)
    containers = blob_account().containers(name)
    assert [job.job_id for job in jobs] == [pool.pool_id for pool in pools] == [name]
    assert sorted(containers) == [f"{name}-app", f"{name}-in", f"{name}-out"]
    assert all(data["owner"] == "topn" and "expires_at" in data for data in containers.values())
    batch_account().delete_jobs_and_pools([name], [name], 10)
    for container in containers:
        blob_account().delete_container(container)


@pytest.mark.parametrize(
    ("answers", "kept"), [("y\ny\n", (0, 0)), ("n\ny\n", (1, 0)), ("y\nn\n", (0, 1)), ("", (0, 0))]
)
def test_ask_puts_the_questions_of_the_tutorial(topn, azure_settings, answers, kept):
    from tasks.accounts import batch_account  # noqa: PLC0415 - after the environment is set

    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "run", "--ask", write("a.txt", b"asked")],
        input=answers,
        capture_output=True,
        text=True,
        env={**os.environ, **topn.environment},
        check=False,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr
    assert "Delete the job?" in done.stderr
    assert "Delete the pool?" in done.stderr
    name = re.search(r"topn-[0-9a-f]{32}-0", done.stdout).group()
    jobs, pools = batch_account().jobs(name), batch_account().pools(name)
    assert (len(jobs), len(pools)) == kept
    batch_account().delete_jobs_and_pools([name], [name], 10)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run"], "required: INPUT"),
        (["run", "missing.txt"], "missing.txt does not exist"),
        (["run", "folder"], "folder is a folder"),
        (["run", "*.nothing"], "*.nothing does not exist"),
        (["run", "a.txt", "-n", "0"], "'0' is not a whole number of at least 1"),
        (["run", "a.txt", "-n", "three"], "'three' is not a whole number of at least 1"),
        (["run", "a.txt", "--output", "a.txt"], "The output folder a.txt cannot be written"),
        (["run", "a.txt", "--output", "a.txt/below"], "The output folder a.txt/below cannot be written"),
        (["run", "a.txt", "--output", "/proc/nothing"], "The output folder /proc/nothing cannot be written"),
        (["run", "a.txt", "--no-such-option"], "unrecognized arguments"),
        (["walk"], "invalid choice: 'walk'"),
    ],
)
def test_bad_usage_is_one_sentence_and_creates_nothing(topn_alone, arguments, sentence):
    """Field report 25: no input is an error, not a run of nothing."""
    write("a.txt", b"text")
    Path("folder").mkdir()
    done = topn_alone(*arguments)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""
    assert not Path(topn_alone.environment["TOPN_STATE"]).exists()


def test_half_a_configuration_is_refused_by_what_is_missing(topn_alone):
    done = topn_alone("run", write("a.txt", b"x"), TOPN_BATCH_ENDPOINT="http://127.0.0.1:1")
    assert done.returncode == 2
    assert "TOPN_STORAGE_ENDPOINT" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_key_is_refused_before_anything_is_created(topn, nothing_left):
    topn.environment["TOPN_BATCH_KEY"] = "d3Jvbmc="
    done = topn("run", write("a.txt", b"x"))
    assert done.returncode == 2
    assert "AuthenticationFailed" in done.stderr
    assert "Traceback" not in done.stderr
    nothing_left()


def test_an_azure_that_does_not_answer_is_refused_at_once(topn):
    topn.environment["TOPN_BATCH_ENDPOINT"] = "http://127.0.0.1:1"
    done = topn("run", write("a.txt", b"x"), timeout=30)
    assert done.returncode == 2
    assert "no answer" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_prefect_server_that_does_not_answer_is_refused(topn):
    topn.environment["PREFECT_API_URL"] = "http://127.0.0.1:1/api"
    done = topn("run", write("a.txt", b"x"))
    assert done.returncode == 2
    assert "No Prefect server answers at http://127.0.0.1:1/api" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_cleans_up_and_ends_with_130(topn, data, local_azure, nothing_left, number):
    seen = len(local_azure.batch.requests)
    process = topn.start("run", *data)

    def job_exists():
        return any(
            (record.method, record.path) == ("POST", "/jobs") for record in list(local_azure.batch.requests)[seen:]
        )

    wait_until(job_exists, "the job was created", while_running=process)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)

    assert process.returncode == 130, (output, errors)
    assert "Traceback" not in errors
    nothing_left()


def test_a_batch_service_with_one_listing_at_a_time_is_enough(topn, local_azure):
    names = [write(f"{number}.txt", f"w{number} ".encode() * 3) for number in range(40)]
    seen = len(local_azure.batch.requests)

    found = topn.json(*names)

    assert found["counted"] == 40
    records = list(local_azure.batch.requests)[seen:]
    listings = sorted((r.started_at, r.ended_at) for r in records if r.method == "GET" and r.path.endswith("/tasks"))
    assert listings
    for (_, ended_at), (started_at, _) in pairwise(listings):
        assert started_at >= ended_at - timedelta(milliseconds=1)
    submissions = [r for r in records if r.path.endswith("/addtaskcollection")]
    assert len(submissions) <= 20


def test_with_nothing_configured_a_run_brings_its_own_servers_and_leaves_its_history(topn_alone, data):
    done = topn_alone("run", *data, timeout=240)

    assert done.returncode == 0, done.stderr
    assert "starting a local one for this run" in done.stderr
    assert "hamlet.txt" in done.stdout
    state = topn_alone.environment["TOPN_STATE"]
    wait_until(lambda: not processes_of(state), "every process has ended")

    with PrefectServer(Path(state)) as server:
        server.wait()
        names = server_task_runs(server.api_url)
    assert sorted(names) == sorted(
        ["sweep", "begin", "plan", "create containers", "create pool", "create job", "wait for Batch tasks", "report"]
        + [f"{step} {n} of {len(data)}" for step in ("stage", "submit", "collect") for n in range(1, len(data) + 1)]
    )


def test_an_interrupted_run_ends_its_own_servers(topn_alone, data):
    process = topn_alone.start("run", *data)
    state = topn_alone.environment["TOPN_STATE"]
    log = Path(state, "localbatch.log")
    wait_until(lambda: log.exists() and "ready" in log.read_text(), "the local Azure is up", while_running=process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)

    assert process.returncode == 130, errors
    wait_until(lambda: not processes_of(state), "every process has ended")


def test_a_killed_run_leaves_no_process_behind(topn_alone, data):
    process = topn_alone.start("run", *data)
    state = topn_alone.environment["TOPN_STATE"]
    log = Path(state, "localbatch.log")
    wait_until(lambda: log.exists() and "ready" in log.read_text(), "the local Azure is up", while_running=process)
    process.kill()
    process.communicate(timeout=60)
    wait_until(lambda: not processes_of(state), "every process has ended")


def server_task_runs(api_url):
    request = urllib.request.Request(f"{api_url}/task_runs/filter", b"{}", {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        runs = json.load(answer)
    assert {run["state_type"] for run in runs} == {"COMPLETED"}
    return [run["name"] for run in runs]


def test_a_pool_set_up_by_a_file_runs_the_files(topn, azure_settings, nothing_left):
    Path("pool.yaml").write_text(
        "start_commands: [touch $AZ_BATCH_NODE_SHARED_DIR/mine]\n"
        "metadata: {costCenter: '42'}\n"
        "extra: {taskSchedulingPolicy: {nodeFillType: pack}}\n"
    )
    found = topn.json(write("a.txt", b"one two two"), "--pool", "pool.yaml", "--keep-pool")

    assert found["counted"] == 1
    from tasks.accounts import batch_account  # noqa: PLC0415 - after the environment is set

    account = batch_account()
    pool = account._client.get_pool(found["run"]).as_dict()
    account.delete_jobs_and_pools([], [found["run"]], 10)
    assert "$AZ_BATCH_NODE_SHARED_DIR/mine" in pool["startTask"]["commandLine"]
    assert {"name": "costCenter", "value": "42"} in pool["metadata"]
    assert pool["taskSchedulingPolicy"]["nodeFillType"] == "pack"
    nothing_left()


def test_a_pool_that_cannot_be_is_refused_before_anything_is_created(topn, nothing_left):
    Path("pool.yaml").write_text("extra: {vmsize: x}\n")
    done = topn("run", write("a.txt", b"one"), "--pool", "pool.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == ["extra of the pool has vmsize, which no pool of the Batch API has."]
    nothing_left()
