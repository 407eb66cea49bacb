"""The process of a Prefect server that a run starts."""

from __future__ import annotations

import shutil
import socket
import stat
from pathlib import Path

from tests_support import wait_until

from flows.servers.prefect_server import template_path
from flows.servers.processes import PrefectServer


def test_server_does_not_inherit_azure_keys(tmp_path, monkeypatch):
    monkeypatch.setenv("TOPN_STORAGE_KEY", "a-key")
    monkeypatch.setenv("TOPN_NOTICE_URL", "https://hooks.example/a-secret")
    with PrefectServer(tmp_path) as server:
        process = Path("/proc", str(server._process.pid))
        # The process first runs a program that prepares its signals.

        def environment_of_server():
            # While the process changes to the server, both files are empty.
            environment = (process / "environ").read_bytes()
            arguments = (process / "cmdline").read_bytes()
            return environment if arguments and b"\0-c\0" not in arguments else b""

        wait_until(environment_of_server, "the server itself runs")
        environment = environment_of_server()
    assert str(tmp_path).encode() in environment
    assert b"TOPN_" not in environment


def test_older_database_becomes_private(tmp_path):
    database = tmp_path / "prefect.db"
    shutil.copy(template_path(), database)
    database.chmod(0o644)
    tmp_path.chmod(0o755)
    with PrefectServer(tmp_path) as server:
        server.wait()
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("prefect*")}
    assert {"prefect.db", "prefect.db-wal", "prefect-server.log"} <= modes.keys()
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_second_server_uses_another_port(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with PrefectServer(tmp_path / "a", port=port) as first, PrefectServer(tmp_path / "b", port=port) as second:
        assert first.api_url == f"http://127.0.0.1:{port}/api"
        assert second.api_url != first.api_url
