"""Fixtures for the `topn` command in this process, without servers."""

from __future__ import annotations

import pytest
from topn_support import Topn


@pytest.fixture(scope="session")
def empty_home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def topn(empty_home, tmp_path):
    """`topn` with no configuration, an empty home folder and a state folder that does not exist yet."""
    return Topn(HOME=str(empty_home), TOPN_STATE=str(tmp_path / "state"))
