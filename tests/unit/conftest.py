"""The `topn` command in this process, without any server."""

from __future__ import annotations

import pytest
from topn_support import Topn


@pytest.fixture
def topn(tmp_path):
    """`topn` with nothing configured, an empty home folder, and a state folder that does not exist."""
    home = tmp_path / "home"
    home.mkdir()
    return Topn(HOME=str(home), TOPN_STATE=str(tmp_path / "state"))
