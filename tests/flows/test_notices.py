"""Notices: a failed run and a late one reach a webhook; a run that died is found out."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading

import pytest
from tests_support import wait_until

# As long as Prefect lets a heartbeat be rare.
HEARTBEAT_SECONDS = 30

FLOW_THAT_LASTS = """
import time
from prefect import flow
@flow(name="topn")
def lasting():
    print(__import__("prefect").runtime.flow_run.id, flush=True)
    time.sleep(600)
lasting()
"""


@pytest.fixture
def webhook():
    """A server on loopback; its `texts` are what it was told."""
    texts = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            texts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    server.texts = texts
    server.url = f"http://127.0.0.1:{server.server_port}/"
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def client(prefect_api):
    from prefect import get_client  # noqa: PLC0415 - takes seconds
    from prefect.settings import PREFECT_API_URL, temporary_settings  # noqa: PLC0415 - as above

    with temporary_settings({PREFECT_API_URL: prefect_api}), get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def set_up(prefect_api, client, tmp_path):
    """Call the command; what it made is deleted afterwards."""

    def call(**variables):
        environment = {"PREFECT_API_URL": prefect_api, "PREFECT_HOME": str(tmp_path), **variables}
        return subprocess.run(
            [sys.executable, "-m", "flows.notices"],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    yield call
    for automation in client.read_automations():
        client.delete_automation(automation.id)


def test_a_failed_run_and_a_late_one_are_told_once_each_by_name_and_reason(
    set_up, webhook, client, prefect_api, tmp_path
):
    from prefect.states import Late  # noqa: PLC0415 - takes seconds

    from flows.topn import topn  # noqa: PLC0415

    assert "created" in set_up(TOPN_NOTICE_URL=webhook.url).stdout
    again = set_up(TOPN_NOTICE_URL=webhook.url)
    assert again.stdout.count("changed") == 2, again.stderr
    assert webhook.url not in again.stdout + again.stderr

    failed = subprocess.run(
        [sys.executable, "-c", "from flows.topn import topn; topn()"],
        env={**os.environ, "PREFECT_API_URL": prefect_api, "PREFECT_HOME": str(tmp_path)},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert failed.returncode == 1
    wait_until(lambda: webhook.texts, "the webhook was told of the failed run")
    run = client.create_flow_run(topn, name="tonight")
    client.set_flow_run_state(run.id, Late(message='It says "when"?'), force=True)
    wait_until(lambda: any("tonight" in text for text in webhook.texts), "the webhook was told of the late run")

    assert len(webhook.texts) == 2
    assert " of topn is Failed: " in webhook.texts[0]
    assert "No Azure is configured" in webhook.texts[0]
    assert 'Run tonight of topn is Late: It says "when"?' in webhook.texts[1]


@pytest.mark.parametrize("url", ["", "hooks.example.com/x", "file:///etc/passwd"])
def test_an_address_that_is_none_is_refused(set_up, url):
    done = set_up(TOPN_NOTICE_URL=url)
    assert done.returncode == 2
    assert done.stderr.startswith("Set TOPN_NOTICE_URL to the http or https address")


@pytest.mark.faults
def test_a_run_whose_process_vanished_is_found_to_have_crashed(set_up, webhook, client, prefect_api, tmp_path):
    variables = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS)}
    assert set_up(TOPN_NOTICE_URL=webhook.url, **variables).returncode == 0
    process = subprocess.Popen(
        [sys.executable, "-c", FLOW_THAT_LASTS],
        env={**os.environ, **variables, "PREFECT_API_URL": prefect_api, "PREFECT_HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    flow_run_id = process.stdout.readline().strip()

    def has_beaten():
        filter_ = {"filter": {"event": {"name": ["prefect.flow-run.heartbeat"]}}}
        answer = client._client.post("/events/filter", json=filter_)
        return flow_run_id in answer.text

    wait_until(has_beaten, "a heartbeat was seen")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)

    def state():
        return client.read_flow_run(flow_run_id).state.type.value

    assert state() == "RUNNING"
    wait_until(lambda: state() == "CRASHED", "the run is found dead", seconds=6 * HEARTBEAT_SECONDS)
    wait_until(lambda: any("is Crashed" in text for text in webhook.texts), "the webhook was told")
