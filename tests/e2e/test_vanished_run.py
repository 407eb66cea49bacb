"""A run whose process vanished becomes Crashed, and a webhook is notified."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from tests_support import wait_until
from webhook_support import listening_webhook

# Prefect's minimum. A run sends its first heartbeat when it starts.
HEARTBEAT_SECONDS = 30

LONG_FLOW = """
import time
from prefect import flow
@flow(name="topn")
def lasting():
    print(__import__("prefect").runtime.flow_run.id, flush=True)
    time.sleep(600)
lasting()
"""


def test_vanished_run_becomes_crashed_and_notifies_webhook(prefect_api, tmp_path, monkeypatch):
    """One lost heartbeat is enough here instead of the usual three, to keep the test short."""
    from prefect import get_client  # noqa: PLC0415 - takes seconds
    from prefect.settings import (  # noqa: PLC0415 - as above
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        temporary_settings,
    )

    from flows import notices  # noqa: PLC0415 - as above

    monkeypatch.setattr(notices, "MAX_LOST_HEARTBEATS", 1)
    monkeypatch.setenv("TOPN_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("PREFECT_API_URL", prefect_api)
    settings = {PREFECT_API_URL: prefect_api, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: HEARTBEAT_SECONDS}
    with (
        listening_webhook() as webhook,
        temporary_settings(settings),
        get_client(sync_client=True) as client,
    ):
        notices.set_up(webhook.url)
        process = subprocess.Popen(
            [sys.executable, "-c", LONG_FLOW],
            env={
                **os.environ,
                "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
                "PREFECT_HOME": str(tmp_path),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        flow_run_id = process.stdout.readline().strip()

        def has_heartbeat():
            filter_ = {"filter": {"event": {"name": ["prefect.flow-run.heartbeat"]}}}
            return flow_run_id in client._client.post("/events/filter", json=filter_).text

        def state():
            return client.read_flow_run(flow_run_id).state.type.value

        try:
            wait_until(has_heartbeat, "a heartbeat was seen")
            assert state() == "RUNNING"
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=60)
            wait_until(lambda: state() == "CRASHED", "the run is found dead", seconds=6 * HEARTBEAT_SECONDS)
            wait_until(lambda: any("is Crashed" in text for text in webhook.texts), "the webhook is notified")
        finally:
            process.kill()
            for automation in client.read_automations():
                client.delete_automation(automation.id)
