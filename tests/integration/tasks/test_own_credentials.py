"""Credentials come from the settings only, and local servers are reached directly."""

from __future__ import annotations

import os
from unittest import mock

import pytest

from tasks.azure.batch import BatchAccount
from tasks.azure.blob import BlobAccount
from tasks.azure.settings import load_settings

DEAD_PROXY = "http://127.0.0.1:9"


@pytest.fixture
def netrc(tmp_path, monkeypatch):
    """A home folder with a password for each host."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\ndefault login me password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_netrc_replaces_no_key(azure_settings, netrc):
    settings = load_settings()
    assert BatchAccount(settings).list_images(retry_total=0)
    BlobAccount(settings).check(retry_total=0)


def test_netrc_replaces_no_token(identity_settings, netrc):
    settings = load_settings()
    assert BatchAccount(settings).list_images(retry_total=0)
    BlobAccount(settings).check(retry_total=0)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_local_azure_needs_no_proxy(azure_settings, name):
    with mock.patch.dict(os.environ, {name: DEAD_PROXY, "NO_PROXY": "example.com"}):
        settings = load_settings()
        assert BatchAccount(settings).list_images(retry_total=0)
        BlobAccount(settings).check(retry_total=0)
