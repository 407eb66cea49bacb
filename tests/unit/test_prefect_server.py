"""The template of Prefect's database is copied only if it is usable."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing

import pytest

from flows.servers.prefect_server import copy_template, template_path


@pytest.fixture
def template(tmp_path):
    """A complete database that only this user can write."""
    path = tmp_path / "template.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE block_type (name TEXT)")
        database.executemany("INSERT INTO block_type VALUES (?)", [("x" * 1000,)] * 100)
        database.commit()
    path.chmod(0o600)
    return path


@pytest.fixture
def database(tmp_path):
    folder = tmp_path / "state"
    folder.mkdir()
    return folder / "prefect.db"


def test_usable_template_is_copied(template, database):
    assert copy_template(template, database)
    assert database.read_bytes() == template.read_bytes()
    assert [path.name for path in database.parent.iterdir()] == ["prefect.db"]


def missing(template):
    template.unlink()


def empty(template):
    template.write_bytes(b"")


def truncated(template):
    template.write_bytes(template.read_bytes()[:20_000])


def corrupted(template):
    content = bytearray(template.read_bytes())
    content[8192:12288] = b"\xff" * 4096
    template.write_bytes(content)


def writable_by_others(template):
    template.chmod(0o666)


def linked(template):
    template.rename(template.with_name("elsewhere.db"))
    template.symlink_to("elsewhere.db")


def named_pipe(template):
    template.unlink()
    os.mkfifo(template)


@pytest.mark.parametrize("damage", [missing, empty, truncated, corrupted, writable_by_others, linked, named_pipe])
def test_unusable_template_is_not_copied(template, database, damage):
    damage(template)
    assert not copy_template(template, database)
    assert list(database.parent.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_template_of_other_user_is_not_copied(template, database):
    os.chown(template, 12345, 12345)
    assert not copy_template(template, database)


def test_no_template_outside_virtual_environment(monkeypatch):
    assert template_path() is not None
    monkeypatch.setattr("sys.base_prefix", "/usr")
    monkeypatch.setattr("sys.prefix", "/usr")
    assert template_path() is None
