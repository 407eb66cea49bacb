"""The Prefect block that can hold the Azure settings in place of `TOPN_` variables: endpoints, account names and keys.

Users fill in the block on the "Blocks" page of the Prefect server. A deployed run reads it from there.
"""

from __future__ import annotations

from functools import lru_cache

from prefect import get_client
from prefect.blocks.core import Block
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_KEY, PREFECT_API_URL
from pydantic import Field, SecretStr

from tasks.azure.settings import BLOCK, AzureSettings, load_settings
from tasks.errors import ConfigurationError
from tasks.prefect_api import describe_prefect_error
from tasks.redaction import protect

SLUG, _, NAME = BLOCK.partition("/")


class TopnAzure(Block):
    """The Azure accounts of topn. Every run uses the block that is named "default". Its keys are never displayed."""

    # An empty field means "not set": Prefect's form shows an optional field as a switch instead of a text field.

    _block_type_name = "topn Azure"
    _block_type_slug = SLUG

    batch_endpoint: str = Field(
        default="",
        title="Batch endpoint",
        description="URL of the Batch account, for example https://mybatch.westeurope.batch.azure.com.",
    )
    batch_account: str = Field(
        default="",
        title="Batch account",
        description="Name of the Batch account, if the endpoint does not start with it.",
    )
    batch_key: SecretStr = Field(
        default=SecretStr(""),
        title="Batch key",
        description="Account key. Without a key, the identity of the worker is used.",
    )
    storage_endpoint: str = Field(
        default="",
        title="Storage endpoint",
        description="URL of the storage account, for example https://mystorage.blob.core.windows.net.",
    )
    storage_account: str = Field(
        default="",
        title="Storage account",
        description="Name of the storage account, if the endpoint does not start with it.",
    )
    storage_key: SecretStr = Field(
        default=SecretStr(""),
        title="Storage key",
        description="Account key. Without a key, the identity of the worker is used.",
    )


def configured_azure() -> AzureSettings:
    """Read the settings from the environment, `.env` and the block.

    Raises:
        ConfigurationError: The settings are missing, incomplete or contradictory.
    """
    return load_settings(block_values())


def block_values() -> dict[str, str | SecretStr]:
    """Return the fields that are set in the block of the current Prefect server, which is read once per process.

    Raises:
        ConfigurationError: The Prefect server does not respond, or rejects the request.
    """
    api_url: str | None = PREFECT_API_URL.value()
    return _block_values_on(api_url) if api_url else {}


@lru_cache(maxsize=4)
def _block_values_on(api_url: str) -> dict[str, str | SecretStr]:
    # Prefect's library for WebSockets logs these at level DEBUG.
    protect(*(value for setting in (PREFECT_API_AUTH_STRING, PREFECT_API_KEY) if (value := setting.value())))
    try:
        with get_client(sync_client=True) as client:
            document = client.read_block_document_by_name(NAME, SLUG, include_secrets=True)
    except ObjectNotFound as error:
        # Other servers do not have the page, but do not answer with JSON.
        response = getattr(error.http_exc, "response", None)
        if response is not None and "json" in response.headers.get("content-type", ""):
            return {}
        raise ConfigurationError(describe_prefect_error(error.http_exc, api_url)) from error
    except Exception as error:
        raise ConfigurationError(describe_prefect_error(error, api_url)) from error
    fields = AzureSettings.model_fields.keys() & document.data.keys()
    return {
        name: SecretStr(value) if name.endswith("_key") else value for name in fields if (value := document.data[name])
    }
