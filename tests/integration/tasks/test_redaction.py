"""What is logged or told has no secret in it, whoever put it there."""

from __future__ import annotations

import io
import logging

import pytest

from tasks import redaction
from tasks.azure.batch import BatchAccount
from tasks.azure.settings import load_settings
from tasks.redaction import HIDDEN, protect

SIGNATURE = "Zm9vYmFy%2Bc2VjcmV0c2VjcmV0%3D"


@pytest.fixture(autouse=True)
def factory(monkeypatch):
    """Put the process's own factory back, and forget the keys."""
    monkeypatch.setattr(redaction, "_keys", set())
    before = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(before)


@pytest.fixture
def log():
    """All that is logged on the root logger, at any level, as text."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream.getvalue
    root.removeHandler(handler)
    root.setLevel(level)


def test_sdk_request_logs_contain_no_signature(azure_settings, log):
    """`logging_enable` lets the SDK log the bodies of requests, in which the URLs for nodes are."""
    protect()
    account = BatchAccount(load_settings())
    url = f"https://a.example/c/b?sv=1&sig={SIGNATURE}"
    task = {"id": "t", "commandLine": "true", "resourceFiles": [{"httpUrl": url, "filePath": "f"}]}
    with pytest.raises(Exception, match="JobNotFound"):
        account._client.create_task_collection("nowhere", {"value": [task]}, logging_enable=True)
    assert "resourceFiles" in log()
    assert f"sig={HIDDEN}" in log()
    assert SIGNATURE not in log()
