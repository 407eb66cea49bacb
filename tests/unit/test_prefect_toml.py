"""`make up` keeps a `prefect.toml` in its folder while it runs, and never touches one of the user."""

from __future__ import annotations

import stat
from pathlib import Path

import tomllib

from flows.servers.prefect_toml import (
    PREFECT_TOML,
    delete_stale_prefect_toml,
    published_in_prefect_toml,
    read_published_prefect_toml,
)

SERVER = {"PREFECT_API_URL": "http://127.0.0.1:4200/api", "PREFECT_API_AUTH_STRING": "topn:a-password"}


def test_file_exists_while_server_runs():
    with published_in_prefect_toml(SERVER) as is_published:
        assert is_published
        assert stat.S_IMODE(PREFECT_TOML.stat().st_mode) == 0o600
        api = {"url": "http://127.0.0.1:4200/api", "auth_string": "topn:a-password"}
        assert tomllib.loads(PREFECT_TOML.read_text()) == {"api": api}
        assert read_published_prefect_toml() == SERVER
        # It belongs to a living process.
        delete_stale_prefect_toml()
        assert PREFECT_TOML.exists()
    assert list(Path().iterdir()) == []


def test_file_of_user_is_kept():
    PREFECT_TOML.write_text("[api]\n")
    delete_stale_prefect_toml()
    with published_in_prefect_toml(SERVER) as is_published:
        assert not is_published
        assert read_published_prefect_toml() == {}
    assert PREFECT_TOML.read_text() == "[api]\n"
    assert list(Path().iterdir()) == [PREFECT_TOML]


def test_file_that_user_replaced_is_kept():
    with published_in_prefect_toml(SERVER):
        PREFECT_TOML.unlink()
        PREFECT_TOML.write_text("[api]\n")
    assert PREFECT_TOML.read_text() == "[api]\n"


def test_file_of_killed_server_is_replaced():
    with published_in_prefect_toml(SERVER):
        left_behind = PREFECT_TOML.read_text()
    PREFECT_TOML.write_text(left_behind)
    Path("prefect.toml.new").write_text("cut off")
    delete_stale_prefect_toml()
    assert not PREFECT_TOML.exists()
    with published_in_prefect_toml(SERVER) as is_published:
        assert is_published
    assert list(Path().iterdir()) == []


def test_file_of_other_server_in_folder_is_kept():
    with published_in_prefect_toml(SERVER):
        with published_in_prefect_toml(SERVER | {"PREFECT_API_URL": "http://127.0.0.1:1/api"}) as is_published:
            assert not is_published
        assert read_published_prefect_toml() == SERVER
