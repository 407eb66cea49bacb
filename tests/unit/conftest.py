"""The `topn` command in this process, without any server."""

from __future__ import annotations

import pytest
from topn_support import Topn


@pytest.fixture(scope="session")
def empty_home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def topn(empty_home, tmp_path):
    """`topn` with nothing configured, an empty home folder, and a state folder that does not exist."""
    return Topn(HOME=str(empty_home), TOPN_STATE=str(tmp_path / "state"))
