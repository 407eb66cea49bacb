"""The umask determines who can read outputs; only the owner can read the state folder."""

from __future__ import annotations

import os
import stat

import pytest

from tasks.files import ensure_private_folder, private_opener, write_atomically
from tasks.model.outputs import Outputs
from tasks.model.verdict import Provenance, StoredResult
from tasks.workload.results_store import results_store


@pytest.fixture(params=[0o077, 0o022, 0o002, 0o000], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_umask_determines_mode_of_outputs(umask, tmp_path):
    path = tmp_path / "new" / "output"
    for content in (b"first", b"second"):
        write_atomically(path, content)
        assert mode_of(path) == 0o666 & ~umask
    assert mode_of(path.parent) == 0o777 & ~umask
    assert [each.name for each in path.parent.iterdir()] == ["output"]


def test_stored_result_creates_private_state_folder(umask, tmp_path, monkeypatch):
    monkeypatch.setenv("TOPN_STATE", str(tmp_path / "state"))
    results_store("run", pytest.fail).put(
        "key",
        StoredResult(outputs=Outputs({}), provenance=Provenance(node_id="n", task_id="t", job_id="j", pool_id="p")),
    )
    assert mode_of(tmp_path / "state") == 0o700
    assert mode_of(tmp_path / "state" / "results" / "key.json") == 0o666 & ~umask


def test_private_folder_and_file_ignore_umask(umask, tmp_path):
    folder = tmp_path / "a" / "state"
    ensure_private_folder(folder)
    with open(folder / "file", "w", opener=private_opener):
        pass
    assert mode_of(folder) == 0o700
    assert mode_of(folder / "file") == 0o600


def test_existing_folder_and_file_become_private(tmp_path):
    folder = tmp_path / "state"
    folder.mkdir()
    folder.chmod(0o775)
    (folder / "file").touch(0o666)
    ensure_private_folder(folder)
    with open(folder / "file", "a", opener=private_opener):
        pass
    assert (mode_of(folder), mode_of(folder / "file")) == (0o700, 0o600)


def test_folder_of_all_users_is_not_closed(tmp_path):
    tmp_path.chmod(0o1777)
    with pytest.raises(PermissionError, match="All users share it"):
        ensure_private_folder(tmp_path)
    assert mode_of(tmp_path) == 0o1777
