"""A URL of a service with more than an address is refused, by a message that does not contain the secret."""

from __future__ import annotations

import pytest

from tasks.azure.settings import load_settings, read_settings
from tasks.errors import ConfigurationError
from tasks.model.urls import parse_url
from tasks.workload.results_store import results_store

SECRET = "c2VjcmV0"

WITH_SECRETS = [
    f"https://mine.blob.core.windows.net?sv=2025-01-05&sig={SECRET}",
    f"https://mine.blob.core.windows.net/c/?sig={SECRET}",
    f"https://mine.blob.core.windows.net/c#{SECRET}",
    f"https://user:{SECRET}@mine.blob.core.windows.net/c",
    f"https://{SECRET}@mine.blob.core.windows.net/c",
    f"https://mine.blob.core.windows.net:x/c?sig={SECRET}",
    f"mine.blob.core.windows.net/c?sig={SECRET}",
    f"ftp://user:{SECRET}@mine.example/c",
    f"sv=2025-01-05&sig={SECRET}",
    f"{SECRET}==",
    f"https://[{SECRET}=",
]


@pytest.mark.parametrize("text", WITH_SECRETS)
@pytest.mark.parametrize("name", ["TOPN_BATCH_ENDPOINT", "TOPN_STORAGE_ENDPOINT"])
def test_endpoint_with_secret_is_refused(monkeypatch, name, text):
    monkeypatch.setenv(name, text)
    with pytest.raises(ConfigurationError, match=f"^{name} ") as refusal:
        read_settings()
    assert SECRET not in str(refusal.value)


@pytest.mark.parametrize("text", WITH_SECRETS)
@pytest.mark.parametrize("own", [None, "https://mine.blob.core.windows.net"])
def test_block_endpoint_with_secret_is_refused(monkeypatch, own, text):
    """Even if the environment has another endpoint, which the message about the difference would quote."""
    if own:
        monkeypatch.setenv("TOPN_STORAGE_ENDPOINT", own)
    with pytest.raises(ConfigurationError, match=r"^storage_endpoint of the Prefect block") as refusal:
        load_settings({"storage_endpoint": text})
    assert SECRET not in str(refusal.value)


@pytest.mark.parametrize("text", [text for text in WITH_SECRETS if text.startswith("https://")])
def test_results_url_with_secret_is_refused(monkeypatch, text):
    monkeypatch.setenv("TOPN_RESULTS", text)
    with pytest.raises(ConfigurationError, match=r"^TOPN_RESULTS ") as refusal:
        results_store("run", print)
    assert SECRET not in str(refusal.value)


@pytest.mark.parametrize("text", ["", "mine", "ftp://mine", "https://", "http://mine:0", "https://mine:x"])
def test_text_that_is_no_url_is_quoted(text):
    with pytest.raises(ConfigurationError, match="not an http or https URL") as refusal:
        parse_url("TOPN_X", text)
    assert repr(text) in str(refusal.value)


@pytest.mark.parametrize(
    "text", ["https://mine.blob.core.windows.net/", "http://127.0.0.1:10000/devstoreaccount1", "http://[::1]:1/a/b"]
)
def test_address_is_accepted(text):
    assert parse_url("TOPN_X", text).geturl() == text
