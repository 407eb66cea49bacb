"""Fixtures for the tests of localbatch. The fixtures of accounts are in the pytest plugin localbatch.testing."""

from __future__ import annotations

import os
import shutil

import pytest
from authority_support import make_authority
from hypothesis import settings

# No test asserts a duration, and other programs may slow the machine down.
settings.register_profile("without deadline", deadline=None, max_examples=int(os.environ.get("MAX_EXAMPLES", "30")))
settings.load_profile("without deadline")

for name in list(os.environ):
    if name.startswith(("TOPN_", "AZURE_", "IDENTITY_", "MSI_")):
        del os.environ[name]


@pytest.fixture(autouse=True)
def own_folder(monkeypatch, tmp_path_factory):
    """Run each test in a folder of its own."""
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    """The certificate file of a private authority, and a certificate for this machine that it issued."""
    return make_authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def escaping(tmp_path):
    """Return a command line of which one process has neither its parent, its group nor its environment any more."""
    sleeper = shutil.copy(shutil.which("sleep"), tmp_path / "sleeper")
    return f"/bin/sh -c '(env -i $(command -v setsid) {sleeper} 300 &); setsid sleep 300 & sleep 300 & sleep 300'"
