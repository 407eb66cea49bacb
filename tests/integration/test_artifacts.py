"""The artifacts of real runs on a real Prefect server."""

from __future__ import annotations

import re
import socket
import threading
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from markdown_support import Shown
from tests_support import send_to_prefect, wait_until

SHARED = pytest.mark.xdist_group("shared_runs")

NAMES = {"topn-summary", "topn-results", "topn-progress", "topn-cleanup"}


@SHARED
def test_run_publishes_summary_and_results(completed_run, read_run, prefect_api):
    flow_run, artifacts = read_run(completed_run.found["run"])

    assert flow_run["name"] == flow_run["state"]["message"] == "5 files: 5 counted"
    # After a failed run of another test, it says that no file failed.
    assert artifacts.keys() - {"topn-failures"} == NAMES
    files = completed_run.found["files"]
    summary = artifacts["topn-summary"]
    did, words, cost, *_ = re.sub(r"\\(.)", r"\1", summary["description"]).splitlines()
    assert did == "- 5 files: 5 counted"
    assert words.startswith("- 54,703 words, 9,009 of them distinct, in 5 files")
    assert cost.startswith("- no cost (local; Azure would charge ")
    found = Shown(summary["data"])
    assert ["Batch tasks completed", "6"] in found.rows
    assert ["Words in all files", f"{sum(file['words'] for file in files):,}"] in found.rows
    [cost] = [text for name, *text in found.rows if name == "Cost of the nodes"]
    assert re.fullmatch(r"no cost \(local; Azure would charge (about 0\.\d{4}|less than 0\.0001) USD\)", *cost)
    assert str(completed_run.folder / "page/report.html") in summary["data"]
    assert f"/runs/flow-run/{flow_run['id']}" in (completed_run.folder / "page/report.html").read_text()
    counts = dict.fromkeys(("sweep", "start", "plan", "create containers", "create pool", "create job"), 1)
    counts |= {"stage": 5, "submit": 5, "collect": 5, "wait for Batch tasks": 2, "plan merges": 1, "merge": 3}
    for step, task_runs in counts.items():
        assert f"| {step} | {task_runs} |" in summary["data"]
    assert summary["data"].count("](data:image/svg+xml;base64,") == 2
    _, *rows = Shown(artifacts["topn-results"]["data"]).rows
    assert [(name, words, top) for name, _, words, _, top in rows] == [
        (file["file"], f"{file['words']:,}", ", ".join(f"{word} {count:,}" for word, count in file["top"]))
        for file in files
    ]
    progress = artifacts["topn-progress"]
    assert progress["data"] == 100
    assert progress["description"] == "5 of 5 completed (5 staged, 5 submitted), 1 of 1 merges completed"


@SHARED
def test_log_of_run_ends_with_its_result(completed_run, read_run, read_log):
    name = completed_run.found["run"]
    flow_run, _ = read_run(name)
    own = [
        "5 files: 5 new, 0 unchanged.",
        f"The containers are {name}-app, -in and -out.",
        f"The pool is {name}, with up to 2 nodes of standard_d2as_v5.",
        f"The job is {name}. It ends at ",
        "Completed 5 Batch tasks.",
        "The corpus of 5 files needs 1 merge.",
        "Completed 1 Batch task.",
        f"The outputs are in {completed_run.folder / 'results'}.",
        f"Deleted container {name}-app, container {name}-in, container {name}-out, job {name}, pool {name}.",
    ]
    prefects = [
        "Beginning flow run",
        "Running hook 'clean_up'",
        "Hook 'clean_up'",
        "Finished in state Completed('5 fil",
    ]
    log = read_log(flow_run["id"])
    assert len(log) == len(own) + len(prefects)
    for start in own + prefects:
        assert [line for line in log if line.startswith(start)], start
    assert log[-1] == "Finished in state Completed('5 files: 5 counted')"


@SHARED
def test_unchanged_run_publishes_no_batch_tasks(completed_run, repeated_run, read_run, prefect_api):
    flow_run, artifacts = read_run(repeated_run.found["run"])
    _, earlier = read_run(completed_run.found["run"])
    [latest] = send_to_prefect(
        prefect_api, "/artifacts/latest/filter", {"artifacts": {"key": {"any_": ["topn-summary"]}}}
    )
    assert latest["latest_id"] != earlier["topn-summary"]["id"]

    assert flow_run["name"] == flow_run["state"]["message"] == "5 files: 5 unchanged"
    assert artifacts.keys() - {"topn-failures"} == {"topn-summary", "topn-results"}
    assert "Batch tasks" not in artifacts["topn-summary"]["data"]


@SHARED
def test_failed_run_shows_reasons_first(failed_run, read_run, read_log):
    flow_run, artifacts = read_run(failed_run.found["run"])

    assert flow_run["name"].startswith("6 files: 3 counted, 3 failed: latin1.txt is not UTF-8 text (")
    assert flow_run["state"]["type"] == "FAILED"
    message = flow_run["state"]["message"]
    reasons = message.removesuffix(". 3 of 6 files failed.").split("; ")
    assert [reason.partition(" (")[0] for reason in reasons] == [
        "latin1.txt is not UTF-8 text",
        "nul.txt has a NUL byte at offset 7",
        "b|`ad.txt is not UTF-8 text",
    ]
    log = read_log(flow_run["id"])
    assert [line for line in log if line in reasons] == reasons
    assert log[-1] == f"Finished in state Failed({message!r})"
    assert not [line for line in log if "Traceback" in line]
    assert artifacts.keys() == NAMES | {"topn-failures"}
    failures = artifacts["topn-failures"]
    assert failures["description"].startswith("- latin1\\.txt is not UTF\\-8 text")
    for part in ("## `` b|`ad.txt ``", "`input`", "`once`", "python -m task_script", "offset 0"):
        assert part in failures["data"]
    summary = artifacts["topn-summary"]["data"]
    assert summary.index("nul\\.txt has a NUL byte") < summary.index("| Run |")
    _, *rows = Shown(artifacts["topn-results"]["data"]).rows
    assert [row[1].partition(":")[0] for row in rows] == ["failed"] * 3 + ["counted"] * 3


@pytest.fixture
def flow_run_id(prefect_api):
    """A flow run on the Prefect server of the tests, which is configured in this process."""
    from prefect import Flow, get_client  # noqa: PLC0415 - after the environment is clean
    from prefect.settings import PREFECT_API_URL, temporary_settings  # noqa: PLC0415

    with temporary_settings({PREFECT_API_URL: prefect_api}):
        with get_client(sync_client=True) as client:
            flow_run = client.create_flow_run(Flow(lambda: None, name="of a test"))
        yield flow_run.id


def artifacts_of(api_url, flow_run_id, key):
    query = {"flow_runs": {"id": {"any_": [str(flow_run_id)]}}, "artifacts": {"key": {"any_": [key]}}}
    return [(found["data"], found["description"]) for found in send_to_prefect(api_url, "/artifacts/filter", query)]


def test_progress_updates_one_artifact(flow_run_id, prefect_api, monkeypatch):
    from tasks.progress import advance  # noqa: PLC0415
    from tasks.report import artifacts  # noqa: PLC0415 - after the environment is clean

    monkeypatch.setattr(artifacts, "PROGRESS_SECONDS", 0.05)
    read_progress = lambda: artifacts_of(prefect_api, flow_run_id, "topn-progress")  # noqa: E731
    with artifacts.progress_artifact(str(flow_run_id), "topn", 4, 0):
        wait_until(lambda: read_progress() == [(0, "0 of 4 completed (0 staged, 0 submitted)")], "it is there")
        advance("staged", done=3)
        wait_until(lambda: read_progress() == [(0, "0 of 4 completed (3 staged, 0 submitted)")], "it moves")
        advance("staged", done=1)
        advance("submitted", done=4)
        advance("completed", done=3)
        advance("merged", total=2)
        advance("merged", done=1)
    assert read_progress() == [(75, "3 of 4 completed (4 staged, 4 submitted), 1 of 2 merges completed")]


def test_progress_of_merges_alone(flow_run_id, prefect_api):
    from tasks.progress import advance  # noqa: PLC0415
    from tasks.report import artifacts  # noqa: PLC0415 - after the environment is clean

    with artifacts.progress_artifact(str(flow_run_id), "topn", 0, 2):
        advance("merged", done=1)
    assert artifacts_of(prefect_api, flow_run_id, "topn-progress") == [(50, "1 of 2 merges completed")]


class Proxy:
    """A proxy in front of a Prefect server that records requests and rejects some."""

    def __init__(self, api_url, is_refused):
        self._target = urlsplit(api_url)
        self._is_refused = is_refused
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.seen = []
        self.api_url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/api"

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._listener.close()

    def _accept(self):
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        server = socket.create_connection((self._target.hostname, self._target.port))
        threading.Thread(target=self._pass_on, args=(server, client), daemon=True).start()
        with suppress(OSError), client, server:
            while data := client.recv(1 << 20):
                if data.startswith((b"POST ", b"PATCH ")):
                    data = self._whole(client, data)
                    self.seen.append(data)
                    if self._is_refused(data):
                        client.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                        return
                # The server refuses requests with the address of another server in the header Host.
                server.sendall(data.replace(urlsplit(self.api_url).netloc.encode(), self._target.netloc.encode()))

    def _whole(self, client, data):
        while b"\r\n\r\n" not in data:
            data += self._next(client)
        length = re.search(rb"(?i)content-length: (\d+)", data)
        size = data.index(b"\r\n\r\n") + 4 + int(length.group(1) if length else 0)
        while len(data) < size:
            data += self._next(client)
        return data

    def _next(self, client):
        if not (data := client.recv(1 << 20)):
            raise ConnectionError("the client closed the connection within a request")
        return data

    def _pass_on(self, server, client):
        with suppress(OSError):
            while data := server.recv(1 << 20):
                client.sendall(data)


def test_progress_updates_are_rate_limited(flow_run_id, prefect_api):
    from prefect.settings import PREFECT_API_URL, temporary_settings  # noqa: PLC0415

    from tasks.progress import advance  # noqa: PLC0415
    from tasks.report.artifacts import progress_artifact  # noqa: PLC0415 - after the environment is clean

    with (
        Proxy(prefect_api, lambda _: False) as proxy,
        temporary_settings({PREFECT_API_URL: proxy.api_url}),
        progress_artifact(str(flow_run_id), "topn", 10_000, 0),
    ):
        for _ in range(10_000):
            advance("staged", done=1)
    assert len(proxy.seen) <= 3
    assert (
        artifacts_of(prefect_api, flow_run_id, "topn-progress")[0][1]
        == "0 of 10,000 completed (10,000 staged, 0 submitted)"
    )


def test_unwritable_artifacts_only_warn(topn, prefect_api, assert_nothing_left):
    def is_refused(request):
        if request.startswith(b"POST /api/artifacts/ "):
            return b"topn-cleanup" not in request
        return request.startswith(b"PATCH /api/flow_runs/") and b"1 counted" in request

    with Proxy(prefect_api, is_refused) as proxy:
        Path("a.txt").write_bytes(b"refused")
        found = topn.json("a.txt", PREFECT_API_URL=proxy.api_url, PREFECT_LOGGING_TO_API_ENABLED="true")

    assert (found["state"], found["counted"]) == ("completed", 1)
    flow_run_id = found["run"].removeprefix("topn-").rpartition("-")[0]
    query = {"logs": {"flow_run_id": {"any_": [str(UUID(flow_run_id))]}, "level": {"ge_": 30}}}
    said = "\n".join(log["message"] for log in send_to_prefect(prefect_api, "/logs/filter", query))
    for what in ("progress", "topn-summary", "topn-results", "name"):
        assert f"The run's {what} could not be written" in said
    assert_nothing_left()
