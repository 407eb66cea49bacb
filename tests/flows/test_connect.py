"""Which servers a command uses, where that is not plain."""

from __future__ import annotations

import json
import socket
import urllib.request
from pathlib import Path

from tests_support import wait_until

from flows.services import PrefectServer


def test_a_prefect_profile_that_names_no_server_is_none(topn_alone):
    """The history is on the server that the run started, and no other server was."""
    profile = Path(topn_alone.environment["HOME"], ".prefect/profiles.toml")
    profile.parent.mkdir()
    profile.write_text('active = "ephemeral"\n\n[profiles.ephemeral]\nPREFECT_SERVER_ALLOW_EPHEMERAL_MODE = "true"\n')
    Path("a.txt").write_text("one two two")

    done = topn_alone("run", "a.txt", timeout=240)

    assert done.returncode == 0, done.stderr
    assert "Starting temporary server" not in done.stderr
    state = Path(topn_alone.environment["TOPN_STATE"])
    with PrefectServer(state) as server:
        server.wait()
        wait_until(lambda: count_runs(server.api_url) == 1, "the run is in the history")


def count_runs(api_url):
    request = urllib.request.Request(f"{api_url}/flow_runs/count", b"{}", {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def test_a_prefect_server_of_a_run_is_not_given_the_keys_of_azure(tmp_path, monkeypatch):
    monkeypatch.setenv("TOPN_STORAGE_KEY", "a-key")
    monkeypatch.setenv("TOPN_NOTICE_URL", "https://hooks.example/a-secret")
    with PrefectServer(tmp_path) as server:
        process = Path("/proc", str(server._process.pid))
        wait_until(lambda: b"uvicorn" in (process / "cmdline").read_bytes().split(b"\0"), "the server itself runs")
        environment = (process / "environ").read_bytes()
    assert str(tmp_path).encode() in environment
    assert b"TOPN_" not in environment


def test_of_two_servers_that_start_at_once_on_a_port_one_takes_another(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with PrefectServer(tmp_path / "a", port=port) as first, PrefectServer(tmp_path / "b", port=port) as second:
        assert first.api_url == f"http://127.0.0.1:{port}/api"
        assert second.api_url != first.api_url
