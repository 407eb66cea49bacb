"""Two runs never use the same state folder at the same time."""

from __future__ import annotations

import threading

import pytest
from tests_support import wait_until

from flows.servers import connect
from flows.servers.processes import state_folder_lock
from tasks.azure.settings import state_folder


def test_second_run_waits_for_first(tmp_path):
    notified, entered, release = threading.Event(), threading.Event(), threading.Event()

    def second_run():
        with state_folder_lock(tmp_path, notified.set):
            entered.set()
            release.wait()

    second = threading.Thread(target=second_run)
    with state_folder_lock(tmp_path, release.set):
        second.start()
        try:
            wait_until(lambda: notified.is_set() or entered.is_set(), "the second run to come to the lock")
            assert notified.is_set()
            assert not entered.is_set()
        finally:
            release.set()
    second.join()
    assert entered.is_set()


def test_state_folder_is_free_after_run(tmp_path):
    waits = []
    for _ in range(2):
        with state_folder_lock(tmp_path / "new", lambda: waits.append("waited")):
            pass
    assert waits == []


def test_command_waits_before_it_starts_servers(topn, monkeypatch):
    class WaitingError(Exception):
        """Ends the wait."""

    def stop(message):
        raise WaitingError(message)

    monkeypatch.setattr(connect, "print_message", stop)
    with topn.environ(), state_folder_lock(state_folder(), lambda: None):
        with pytest.raises(WaitingError, match="Waiting for another run"), connect.connected():
            pass
        assert not [path for path in state_folder().iterdir() if path.suffix == ".log"]
