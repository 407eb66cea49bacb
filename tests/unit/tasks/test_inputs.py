"""Input names that are not regular files."""

from __future__ import annotations

import os

import pytest

from tasks.errors import UsageError
from tasks.model.inputs import find_inputs


@pytest.mark.parametrize("name", ["a\0b", "\0", "\ud800", "missing\n\x1b[2J", "[", "**/\0"])
def test_impossible_name_is_rejected(name):
    with pytest.raises(UsageError) as refusal:
        find_inputs([name])
    assert str(refusal.value).isprintable()


def test_folders_devices_and_pipes_are_rejected(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in (tmp_path, tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(UsageError, match=r"regular file|folder"):
            find_inputs([str(name)])
