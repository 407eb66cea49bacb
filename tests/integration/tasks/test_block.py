"""The Prefect block with Azure settings, on a real Prefect server."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests_support import watch_requests
from topn_support import Topn

from tasks.azure import block as azure_block
from tasks.azure.block import NAME, TopnAzure, configured_azure
from tasks.errors import ConfigurationError

KEY = "c2VudGluZWw="
CLOUD = {
    "batch_endpoint": "https://mine.westeurope.batch.azure.com",
    "storage_endpoint": "https://mine.blob.core.windows.net",
}


@pytest.fixture
def on_server(prefect_api):
    """The API address of the Prefect server in use; blocks are deleted afterwards."""
    from prefect.settings import PREFECT_API_URL, temporary_settings  # noqa: PLC0415 - takes seconds

    azure_block._block_values_on.cache_clear()
    with temporary_settings({PREFECT_API_URL: prefect_api}):
        yield prefect_api
        if NAME in [name.partition("/")[2] for name in saved_blocks()]:
            TopnAzure.delete(NAME)
    azure_block._block_values_on.cache_clear()


def saved_blocks():
    from prefect import get_client  # noqa: PLC0415 - takes seconds

    with get_client(sync_client=True) as client:
        blocks = client.read_block_documents(include_secrets=False)
    return {f"{block.block_type.slug}/{block.name}": str(block.data) for block in blocks}


def test_block_alone_configures_azure(on_server):
    TopnAzure(**CLOUD, batch_key=KEY, storage_account="").save(NAME)
    settings = configured_azure()
    assert settings.batch_endpoint == CLOUD["batch_endpoint"]
    assert settings.batch_key.get_secret_value() == KEY
    assert (settings.storage_key, settings.storage_account) == (None, None)


def test_block_keys_are_never_shown(on_server):
    block = TopnAzure(**CLOUD, batch_key=KEY)
    block.save(NAME)
    assert KEY not in f"{block!r} {block} {saved_blocks()} {configured_azure()!r}"
    assert "mine.westeurope" in saved_blocks()[f"topn-azure/{NAME}"]


def test_block_and_environment_are_merged(on_server, monkeypatch):
    TopnAzure(batch_key=KEY, storage_endpoint=CLOUD["storage_endpoint"]).save(NAME)
    monkeypatch.setenv("TOPN_BATCH_ENDPOINT", CLOUD["batch_endpoint"])
    monkeypatch.setenv("TOPN_STORAGE_ENDPOINT", CLOUD["storage_endpoint"])
    settings = configured_azure()
    assert (settings.batch_key.get_secret_value(), settings.storage_endpoint) == (KEY, CLOUD["storage_endpoint"])


def test_conflicting_settings_name_both_sources_without_keys(on_server, monkeypatch):
    TopnAzure(**CLOUD, batch_key=KEY).save(NAME)
    monkeypatch.setenv("TOPN_BATCH_ENDPOINT", "https://other.westeurope.batch.azure.com")
    with pytest.raises(ConfigurationError) as refusal:
        configured_azure()
    for part in ("TOPN_BATCH_ENDPOINT", "topn-azure/default", "https://other.", "https://mine."):
        assert part in str(refusal.value)

    monkeypatch.setenv("TOPN_BATCH_ENDPOINT", CLOUD["batch_endpoint"])
    monkeypatch.setenv("TOPN_BATCH_KEY", "b3RoZXI=")
    with pytest.raises(ConfigurationError, match="TOPN_BATCH_KEY and `batch_key` of the Prefect block") as refusal:
        configured_azure()
    assert KEY not in str(refusal.value)
    assert "b3RoZXI=" not in str(refusal.value)


def test_incomplete_block_error_names_missing_setting(on_server):
    TopnAzure(batch_endpoint=CLOUD["batch_endpoint"]).save(NAME)
    with pytest.raises(
        ConfigurationError, match=r"TOPN_STORAGE_ENDPOINT .* here or in the Prefect block topn-azure/default"
    ):
        configured_azure()


def test_block_endpoint_must_be_address(on_server):
    TopnAzure(**CLOUD | {"storage_endpoint": "mine"}).save(NAME)
    with pytest.raises(ConfigurationError, match="storage_endpoint of the Prefect block topn-azure/default is 'mine'"):
        configured_azure()


def test_unconfigured_deployed_run_error_mentions_make_up(on_server):
    with pytest.raises(ConfigurationError, match="`make up`"):
        configured_azure()


def test_run_uses_accounts_of_block(on_server, local_azure, tmp_path, no_pictures):
    values = {name.removeprefix("TOPN_").lower(): value for name, value in local_azure.environment.items()}
    TopnAzure(**values).save(NAME)
    Path("a.txt").write_text(f"one two two {tmp_path}")
    requests = watch_requests(local_azure.batch)
    topn = Topn(
        PREFECT_API_URL=on_server,
        PREFECT_LOCAL_STORAGE_PATH=str(tmp_path / "storage"),
        TOPN_STATE=str(tmp_path / "state"),
    )

    done = topn("run", "a.txt")

    assert done.returncode == 0, done.stderr
    assert "starting a local one" not in done.stderr
    assert ("POST", "/jobs") in [(record.method, record.path) for record in requests()]
