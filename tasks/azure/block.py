"""The Prefect block that can hold what the `TOPN_` settings say: where the Azure accounts are, and their keys.

A deployed run reads it from the Prefect server that runs it; there, people fill it in on the page "Blocks".
"""

from __future__ import annotations

from functools import lru_cache

from prefect import get_client
from prefect.blocks.core import Block
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL
from pydantic import Field, SecretStr

from tasks.azure.settings import BLOCK, AzureSettings, load_settings

SLUG, _, NAME = BLOCK.partition("/")


class TopnAzure(Block):
    """Where topn's Azure accounts are. Saved as "default", it is used by every run; its keys are never shown."""

    # An empty field is one that is not set: in Prefect's form, a field that may be None is a switch and no field.

    _block_type_name = "topn Azure"
    _block_type_slug = SLUG

    batch_endpoint: str = Field(
        default="",
        title="Batch endpoint",
        description="URL of the Batch account, such as https://mybatch.westeurope.batch.azure.com.",
    )
    batch_account: str = Field(
        default="",
        title="Batch account",
        description="Name of the Batch account, where its endpoint does not begin with it.",
    )
    batch_key: SecretStr = Field(
        default=SecretStr(""),
        title="Batch key",
        description="Account key. Without one, the identity that the worker has is used.",
    )
    storage_endpoint: str = Field(
        default="",
        title="Storage endpoint",
        description="URL of the storage account, such as https://mystorage.blob.core.windows.net.",
    )
    storage_account: str = Field(
        default="",
        title="Storage account",
        description="Name of the storage account, where its endpoint does not begin with it.",
    )
    storage_key: SecretStr = Field(
        default=SecretStr(""),
        title="Storage key",
        description="Account key. Without one, the identity that the worker has is used.",
    )


def configured_azure() -> AzureSettings:
    """Read the settings from the environment, `.env` and the block.

    Raises:
        ConfigurationError: None is set, or half of them, or they contradict each other.
    """
    return load_settings(block_values())


def block_values() -> dict[str, str | SecretStr]:
    """Give the fields that are set in the block of the Prefect server in use; it is read once in a process."""
    api_url: str | None = PREFECT_API_URL.value()
    return {} if api_url is None else _block_values_on(api_url)


@lru_cache(maxsize=4)
def _block_values_on(api_url: str) -> dict[str, str | SecretStr]:
    del api_url
    try:
        with get_client(sync_client=True) as client:
            document = client.read_block_document_by_name(NAME, SLUG, include_secrets=True)
    except ObjectNotFound:
        return {}
    fields = AzureSettings.model_fields.keys() & document.data.keys()
    return {
        name: SecretStr(value) if name.endswith("_key") else value for name in fields if (value := document.data[name])
    }
