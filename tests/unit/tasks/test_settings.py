"""Settings are complete, absent, or rejected in one sentence that names what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from tasks.azure.settings import account_of, load_settings, read_settings, results_location
from tasks.errors import ConfigurationError

FULL = {
    "TOPN_BATCH_ENDPOINT": "http://127.0.0.1:10100",
    "TOPN_BATCH_ACCOUNT": "batch",
    "TOPN_BATCH_KEY": "a2V5",
    "TOPN_STORAGE_ENDPOINT": "http://127.0.0.1:10000/store",
    "TOPN_STORAGE_ACCOUNT": "store",
    "TOPN_STORAGE_KEY": "a2V5",
}


def set_all(monkeypatch, values):
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_missing_configuration_error_has_advice():
    assert not read_settings().is_configured
    with pytest.raises(ConfigurationError, match="localbatch serve"):
        load_settings()


def test_complete_settings_are_loaded(monkeypatch):
    set_all(monkeypatch, FULL)
    assert load_settings().storage_account == "store"


@pytest.mark.parametrize("missing", list(FULL))
def test_missing_setting_of_local_azure_is_named(monkeypatch, missing):
    set_all(monkeypatch, {name: value for name, value in FULL.items() if name != missing})
    with pytest.raises(ConfigurationError, match=missing):
        load_settings()


def test_azure_account_needs_only_endpoints(monkeypatch):
    monkeypatch.setenv("TOPN_BATCH_ENDPOINT", "https://mine.westeurope.batch.azure.com")
    monkeypatch.setenv("TOPN_STORAGE_ENDPOINT", "https://mine.blob.core.windows.net")
    assert load_settings().batch_key is None


def test_empty_setting_is_unset(monkeypatch):
    monkeypatch.setenv("TOPN_BATCH_KEY", "")
    assert not read_settings().is_configured


def test_endpoint_must_be_address(monkeypatch):
    monkeypatch.setenv("TOPN_BATCH_ENDPOINT", "mine.westeurope.batch.azure.com")
    with pytest.raises(ConfigurationError, match="TOPN_BATCH_ENDPOINT is 'mine"):
        read_settings()


def test_settings_are_read_from_dotenv_file():
    Path(".env").write_text("".join(f"{name}={value}\n" for name, value in FULL.items()) + "OTHER=1\n")
    assert load_settings().batch_account == "batch"
    Path(".env").unlink()
    assert not read_settings().is_configured


def test_settings_text_hides_keys(monkeypatch):
    set_all(monkeypatch, FULL | {"TOPN_BATCH_KEY": "c2VudGluZWw="})
    settings = load_settings()
    assert "c2VudGluZWw" not in f"{settings!r} {settings} {settings.model_dump()}"


@pytest.mark.parametrize(
    ("endpoint", "account"),
    [
        ("https://mine.westeurope.batch.azure.com", "mine"),
        ("https://store.blob.core.windows.net/", "store"),
        ("http://127.0.0.1:10000/devstoreaccount1", None),
        ("http://localhost:10100", None),
    ],
)
def test_account_name_comes_from_cloud_endpoint(endpoint, account):
    assert account_of(endpoint) == account


def test_results_default_to_state_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("TOPN_STATE", str(tmp_path))
    assert results_location() == str(tmp_path / "results")
    monkeypatch.setenv("TOPN_RESULTS", "/elsewhere")
    assert results_location() == "/elsewhere"


@pytest.mark.parametrize("name", ["TOPN_BATCH_KEY", "TOPN_STORAGE_KEY"])
def test_disallowed_key_is_named_and_hidden(monkeypatch, name):
    for half in ("BATCH", "STORAGE"):
        monkeypatch.setenv(f"TOPN_{half}_ENDPOINT", f"https://mine.{half.lower()}.example.com")
    monkeypatch.setenv("TOPN_ALLOW_KEYS", "false")
    assert not load_settings().allow_keys
    monkeypatch.setenv(name, "c2VudGluZWw=")
    with pytest.raises(ConfigurationError, match=name.removeprefix("TOPN_").lower()) as refusal:
        load_settings()
    assert "TOPN_ALLOW_KEYS is false" in str(refusal.value)
    assert "c2VudGluZWw" not in str(refusal.value)


def test_disallowed_block_key_error_names_block(monkeypatch):
    Path(".env").write_text("TOPN_ALLOW_KEYS=no\n")
    block = {
        "batch_endpoint": "https://mine.westeurope.batch.azure.com",
        "storage_endpoint": "https://mine.blob.core.windows.net",
        "storage_key": SecretStr("c2VudGluZWw="),
    }
    with pytest.raises(ConfigurationError, match="the Prefect block topn-azure/default has storage_key"):
        load_settings(block)


def test_allow_keys_alone_configures_nothing(monkeypatch):
    monkeypatch.setenv("TOPN_ALLOW_KEYS", "false")
    assert not read_settings().is_configured
    monkeypatch.setenv("TOPN_ALLOW_KEYS", "sometimes")
    with pytest.raises(ConfigurationError, match=r"^TOPN_ALLOW_KEYS cannot be read: .*boolean"):
        read_settings()
