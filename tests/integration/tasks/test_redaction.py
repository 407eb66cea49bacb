"""Logs of the Azure SDK contain no secrets."""

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
    """Clear the protected keys, and restore the log record factory after the test."""
    monkeypatch.setattr(redaction, "_keys", set())
    before = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(before)


@pytest.fixture
def log():
    """Return a function that reads everything logged at any level."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream.getvalue
    root.removeHandler(handler)
    root.setLevel(level)


def test_sdk_request_logs_contain_no_signature(azure_settings, log):
    """With `logging_enable`, the SDK logs request bodies, which contain the signed URLs for nodes."""
    protect()
    account = BatchAccount(load_settings())
    url = f"https://a.example/c/b?sv=1&sig={SIGNATURE}"
    task = {"id": "t", "commandLine": "true", "resourceFiles": [{"httpUrl": url, "filePath": "f"}]}
    with pytest.raises(Exception, match="JobNotFound"):
        account._client.create_task_collection("nowhere", {"value": [task]}, logging_enable=True)
    assert "resourceFiles" in log()
    assert f"sig={HIDDEN}" in log()
    assert SIGNATURE not in log()
