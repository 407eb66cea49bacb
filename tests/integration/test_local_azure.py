"""The local Azure that `topn run` starts when no Azure is configured."""

from __future__ import annotations

from importlib.machinery import ModuleSpec

import pytest
from tests_support import wait_until

from flows.servers import processes
from flows.servers.processes import LocalAzure
from tasks.errors import ConfigurationError


def test_missing_azurite_is_reported_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCALBATCH_DATA", str(tmp_path / "nothing"))
    with LocalAzure(tmp_path) as azure:
        wait_until(azure.exit_message, "localbatch has exited")
        with pytest.raises(ConfigurationError, match=r"Azurite is not installed.*`localbatch install`"):
            azure.check()


@pytest.mark.parametrize("spec", [None, ModuleSpec("localbatch", loader=None)], ids=["nothing", "only a folder"])
def test_missing_localbatch_is_reported_at_once(tmp_path, monkeypatch, spec):
    monkeypatch.setattr(processes, "find_spec", lambda name: spec)
    with LocalAzure(tmp_path) as azure, pytest.raises(ConfigurationError, match=r"pip install 'topn\[local\]'"):
        azure.check()
