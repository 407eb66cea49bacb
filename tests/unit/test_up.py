"""`make up` checks its preconditions before it starts anything."""

from __future__ import annotations

import signal

import pytest
from tests_support import REPOSITORY

from flows.servers import up
from flows.servers.addresses import publish_addresses, read_published_addresses
from tasks.errors import ConfigurationError


@pytest.fixture(autouse=True)
def kept_signals():
    """Restore the signal handlers that `make up` replaces."""
    kept = {number: signal.getsignal(number) for number in up.STOP_SIGNALS}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.fixture
def state(tmp_path, monkeypatch):
    folder = tmp_path / "state"
    monkeypatch.setenv("TOPN_STATE", str(folder))
    return folder


def test_second_up_in_same_folder_is_rejected(state, monkeypatch, capsys):
    monkeypatch.chdir(REPOSITORY)
    with publish_addresses(state):
        assert up.main() == 2
    error = capsys.readouterr().err
    assert "`make up` already runs in" in error
    assert len(error.splitlines()) == 1


def test_up_requires_deployments(state, capsys):
    assert up.main() == 2
    assert "There is no prefect.yaml here" in capsys.readouterr().err
    assert not state.exists()


def test_up_lock_is_exclusive_and_clears_addresses(tmp_path):
    assert read_published_addresses(tmp_path, pytest.fail) == {}
    with publish_addresses(tmp_path) as write:
        write({"PREFECT_API_URL": "http://127.0.0.1:1/api"})
        assert read_published_addresses(tmp_path, pytest.fail) == {"PREFECT_API_URL": "http://127.0.0.1:1/api"}
        assert (tmp_path / "up.json").stat().st_mode & 0o077 == 0
        with pytest.raises(ConfigurationError, match="already"), publish_addresses(tmp_path):
            pass
    (tmp_path / "up.json").write_text('{"PREFECT_API_URL": "http://127.0.0.1:1/api"}')
    assert read_published_addresses(tmp_path, pytest.fail) == {}
