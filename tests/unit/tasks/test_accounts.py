"""Opening an account redacts its key and all signatures in logs."""

from __future__ import annotations

import io
import logging

import pytest

from tasks import redaction
from tasks.azure.accounts import _batch_account, _blob_account
from tasks.azure.settings import AzureSettings
from tasks.redaction import HIDDEN

KEYS = {"batch_key": "YmF0Y2gga2V5", "storage_key": "c3RvcmFnZSBrZXk="}


@pytest.fixture
def log(monkeypatch):
    """Return a function that reads the log of this test; no key is redacted at the start."""
    monkeypatch.setattr(redaction, "_keys", set())
    make_record = logging.getLogRecordFactory()
    logging.setLogRecordFactory(logging.LogRecord)
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logging.getLogger().addHandler(handler)
    yield stream.getvalue
    logging.getLogger().removeHandler(handler)
    logging.setLogRecordFactory(make_record)


@pytest.mark.parametrize("open_account", [_batch_account, _blob_account])
def test_opening_account_redacts_its_secrets(log, open_account):
    open_account.cache_clear()
    settings = AzureSettings(
        batch_endpoint="http://127.0.0.1:1",
        batch_account="batch",
        storage_endpoint="http://127.0.0.1:1/store",
        storage_account="store",
        **KEYS,
    )

    open_account(settings)

    logging.getLogger("some.library").warning("%s sent /c/b?sig=Zm9vYmFyc2VjcmV0", " ".join(KEYS.values()))
    assert log() == f"{HIDDEN} {HIDDEN} sent /c/b?sig={HIDDEN}\n"
    open_account.cache_clear()
