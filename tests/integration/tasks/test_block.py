"""The Prefect block with Azure settings, on a real Prefect server."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from prefect.blocks.core import Block
from pydantic import SecretStr
from tests_support import resources_of_runs, watch_requests
from topn_support import Topn

from tasks.azure import block as azure_block
from tasks.azure.block import TopnAzure, configured_azure
from tasks.azure.settings import use_block
from tasks.errors import ConfigurationError
from tasks.steps.cleanup import clean_up

NAME, OTHER_NAME = "default", "other"
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
        for slug, _, name in (saved.partition("/") for saved in saved_blocks()):
            if slug == "topn-azure":
                TopnAzure.delete(name)
            elif slug == Credentials._block_type_slug:
                Credentials.delete(name)
    azure_block._block_values_on.cache_clear()


class Credentials(Block):
    """The fields of the credentials block of prefect-azure, which is not installed here."""

    _block_type_name = "Azure Blob Storage Credentials"
    _block_type_slug = "azure-blob-storage-credentials"

    connection_string: SecretStr | None = None
    account_url: str | None = None
    client_secret: SecretStr | None = None


@pytest.mark.parametrize(
    ("credentials", "endpoint", "account", "key"),
    [
        (
            {
                "connection_string": f"DefaultEndpointsProtocol=https;AccountName=mine;AccountKey={KEY};EndpointSuffix=a.cn"
            },
            "https://mine.blob.a.cn",
            "mine",
            KEY,
        ),
        (
            {"connection_string": f"AccountName=mine;AccountKey={KEY};BlobEndpoint=http://127.0.0.1:10000/mine;"},
            "http://127.0.0.1:10000/mine",
            "mine",
            KEY,
        ),
        ({"account_url": CLOUD["storage_endpoint"]}, CLOUD["storage_endpoint"], None, None),
    ],
)
def test_block_uses_credentials_of_prefect_azure(on_server, credentials, endpoint, account, key):
    Credentials(**credentials).save("mine")
    TopnAzure(batch_endpoint=CLOUD["batch_endpoint"], storage_credentials="mine").save(NAME)
    settings = configured_azure()
    found_key = settings.storage_key and settings.storage_key.get_secret_value()
    assert (settings.storage_endpoint, settings.storage_account, found_key) == (endpoint, account, key)


@pytest.mark.parametrize(
    ("credentials", "fields", "sentence"),
    [
        (None, {}, "The Prefect block azure-blob-storage-credentials/mine does not exist"),
        ({"account_url": "https://a.b.c", "client_secret": KEY}, {}, "The service principal in the Prefect block"),
        (
            {"connection_string": f"AccountName=a;SharedAccessSignature={KEY}"},
            {},
            "needs an AccountName and an AccountKey",
        ),
        ({"account_url": "https://a.b.c"}, {"storage_key": KEY}, "both `storage_credentials` and `storage_key`"),
    ],
)
def test_unusable_credentials_error_says_why(on_server, credentials, fields, sentence):
    if credentials is not None:
        Credentials(**credentials).save("mine")
    TopnAzure(batch_endpoint=CLOUD["batch_endpoint"], storage_credentials="mine", **fields).save(NAME)
    with pytest.raises(ConfigurationError, match=sentence) as refusal:
        configured_azure()
    assert KEY not in str(refusal.value)


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


@pytest.fixture
def topn(on_server, tmp_path, no_pictures):
    """`topn` without settings in the environment."""
    storage, state = str(tmp_path / "storage"), str(tmp_path / "state")
    return Topn(PREFECT_API_URL=on_server, PREFECT_LOCAL_STORAGE_PATH=storage, TOPN_STATE=state)


@pytest.fixture
def save_local_azure(local_azure):
    """Return a function that saves a block with the accounts of the local Azure."""
    values = {name.removeprefix("TOPN_").lower(): value for name, value in local_azure.environment.items()}
    return lambda name: TopnAzure(**values).save(name)


def test_run_uses_accounts_of_block(topn, save_local_azure, local_azure, tmp_path):
    save_local_azure(NAME)
    Path("a.txt").write_text(f"one two two {tmp_path}")
    requests = watch_requests(local_azure.batch)

    done = topn("run", "a.txt")

    assert done.returncode == 0, done.stderr
    assert "starting a local one" not in done.stderr
    assert ("POST", "/jobs") in [(record.method, record.path) for record in requests()]


def test_flow_and_its_cleanup_use_block_of_parameter(topn, save_local_azure, local_azure, tmp_path):
    from flows.topn import topn as flow  # noqa: PLC0415 - takes seconds

    TopnAzure(**CLOUD).save(NAME)
    save_local_azure(OTHER_NAME)
    Path("a.txt").write_text(f"one two two {tmp_path}")
    requests = watch_requests(local_azure.batch)
    with topn.environ():
        report = flow(["a.txt"], azure_block=OTHER_NAME)
        with use_block(OTHER_NAME):
            assert not [name for name in resources_of_runs() if report.run_name in name]
    assert report.headline == "1 file: 1 counted"
    assert ("DELETE", f"/jobs/{report.run_name}") in [(record.method, record.path) for record in requests()]


def test_hook_without_run_uses_block_of_parameter(topn, caplog):
    """A worker calls the hooks of a run that was killed in a new process."""
    from prefect.client.schemas.objects import FlowRun  # noqa: PLC0415 - takes seconds
    from prefect.states import Crashed  # noqa: PLC0415 - as above

    from flows.topn import topn as flow  # noqa: PLC0415 - as above

    run = FlowRun(id=uuid.uuid4(), flow_id=uuid.uuid4(), name="dead", parameters={"azure_block": "missing"})
    with topn.environ():
        clean_up(flow, run, Crashed())
    assert "Nothing was cleaned up: The Prefect block topn-azure/missing does not exist." in caplog.text


@pytest.mark.parametrize("command", [["run", "a.txt"], ["check"], ["sweep"]])
def test_missing_block_is_usage_error(topn, command):
    Path("a.txt").write_text("one")
    done = topn(*command, "--azure-block", "missing")
    assert (done.returncode, done.stdout) == (2, "")
    assert "The Prefect block topn-azure/missing does not exist. Create it" in done.stderr
