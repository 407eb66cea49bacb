"""What all tests share: an environment without the machine's own settings."""

from __future__ import annotations

import os

import pytest

for name in list(os.environ):
    if name.startswith(("TOPN_", "PREFECT_", "AZURE_")):
        del os.environ[name]
# No test may talk to anything but this machine.
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["DO_NOT_TRACK"] = "1"


@pytest.fixture(autouse=True)
def clean_environ(monkeypatch, tmp_path_factory):
    """Keep what one test sets, and this machine's `.env`, away from the others."""
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))
