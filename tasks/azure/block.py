"""The Prefect block that can hold the Azure settings in place of `TOPN_` variables: endpoints, account names and keys.

Users fill in the block on the "Blocks" page of the Prefect server. A deployed run reads it from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from prefect import Flow, get_client
from prefect.blocks.core import Block
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_KEY, PREFECT_API_URL
from pydantic import Field, SecretStr

from tasks.azure.settings import BLOCK_TYPE, AzureSettings, block_in_use, load_settings
from tasks.errors import ConfigurationError
from tasks.model.parameters import DEFAULT_BLOCK
from tasks.prefect_api import describe_prefect_error
from tasks.redaction import protect

# The parameter of a flow with the name of its block.
PARAMETER = "azure_block"

# The type of the blocks of prefect-azure. It need not be installed here, because only its documents are read.
CREDENTIALS_TYPE = "azure-blob-storage-credentials"
STORAGE_CREDENTIALS = "storage_credentials"


class TopnAzure(Block):
    """The Azure accounts of topn. A run uses the block that its parameter `azure_block` names. Keys are never displayed."""

    # An empty field means "not set": Prefect's form shows an optional field as a switch instead of a text field.

    _block_type_name = "topn Azure"
    _block_type_slug = BLOCK_TYPE

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
    storage_credentials: str = Field(
        default="",
        title="Storage credentials",
        description='Name of a block of the type "Azure Blob Storage Credentials", in place of the three fields above.',
    )


def configured_azure() -> AzureSettings:
    """Read the settings from the environment, `.env` and the block.

    Raises:
        ConfigurationError: The settings are missing, incomplete or contradictory.
    """
    return load_settings(block_values(), _block_name())


def block_of_run(flow: Flow[..., Any], parameters: Mapping[str, Any]) -> str:
    """Return the name of the block of a flow run with these parameters, which need not include the defaults."""
    default = flow.parameters.properties.get(PARAMETER, {}).get("default", DEFAULT_BLOCK)
    return str(parameters.get(PARAMETER, default))


def _block_name() -> str:
    """Return the name of the block that `use_block` has set, or else that of the current flow run."""
    if (name := block_in_use()) is not None:
        return name
    run = FlowRunContext.get()
    return DEFAULT_BLOCK if run is None or run.flow is None else block_of_run(run.flow, run.parameters or {})


def block_values() -> dict[str, str | SecretStr]:
    """Return the fields that are set in the block of the current Prefect server, which is read once per process.

    Raises:
        ConfigurationError: The block does not exist and is not the default one, or the Prefect server does not respond, or
            rejects the request.
    """
    api_url: str | None = PREFECT_API_URL.value()
    name = _block_name()
    values = _block_values_on(api_url, name) if api_url else None
    if values is None and name != DEFAULT_BLOCK:
        raise ConfigurationError(
            f"The Prefect block {BLOCK_TYPE}/{name} does not exist. Create it on the page Blocks of the Prefect server, or "
            f"set `{PARAMETER}` to another."
        )
    return values or {}


@lru_cache(maxsize=16)
def _block_values_on(api_url: str, name: str) -> dict[str, str | SecretStr] | None:
    # Prefect's library for WebSockets logs these at level DEBUG.
    protect(*(value for setting in (PREFECT_API_AUTH_STRING, PREFECT_API_KEY) if (value := setting.value())))
    data = _read_document(api_url, BLOCK_TYPE, name)
    if data is None:
        return None
    values = {field: data[field] for field in AzureSettings.model_fields if data.get(field)}
    if credentials := data.get(STORAGE_CREDENTIALS):
        if storage := [field for field in values if field.startswith("storage_")]:
            raise ConfigurationError(
                f"The Prefect block {BLOCK_TYPE}/{name} has both `{STORAGE_CREDENTIALS}` and `{storage[0]}`. Clear one of them."
            )
        values |= _storage_values(api_url, credentials)
    return {field: SecretStr(value) if field.endswith("_key") else value for field, value in values.items()}


def _read_document(api_url: str, block_type: str, name: str) -> dict[str, Any] | None:
    """Return the fields of a block, or None if it does not exist."""
    try:
        with get_client(sync_client=True) as client:
            return client.read_block_document_by_name(name, block_type, include_secrets=True).data
    except ObjectNotFound as error:
        # Other servers do not have the page, but do not answer with JSON.
        response = getattr(error.http_exc, "response", None)
        if response is not None and "json" in response.headers.get("content-type", ""):
            return None
        raise ConfigurationError(describe_prefect_error(error.http_exc, api_url)) from error
    except Exception as error:
        raise ConfigurationError(describe_prefect_error(error, api_url)) from error


def _storage_values(api_url: str, name: str) -> dict[str, str]:
    """Return the settings of the storage account in a credentials block of prefect-azure.

    Raises:
        ConfigurationError: The block does not exist, or has neither an account key nor only the URL of the account.
    """
    block = f"Prefect block {CREDENTIALS_TYPE}/{name}"
    data = _read_document(api_url, CREDENTIALS_TYPE, name)
    if data is None:
        raise ConfigurationError(f"The {block} does not exist. Create it, or clear `{STORAGE_CREDENTIALS}`.")
    if data.get("client_secret"):
        raise ConfigurationError(
            f"The service principal in the {block} cannot be used. Set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET "
            "where the flow runs, and save a block with only `account_url`."
        )
    if url := data.get("account_url"):
        return {"storage_endpoint": url}
    # Source: https://learn.microsoft.com/azure/storage/common/storage-configure-connection-string
    parts = dict(part.split("=", 1) for part in (data.get("connection_string") or "").split(";") if "=" in part)
    account, key = parts.get("AccountName"), parts.get("AccountKey")
    if not account or not key:
        raise ConfigurationError(f"The connection string in the {block} needs an AccountName and an AccountKey.")
    protocol, suffix = parts.get("DefaultEndpointsProtocol", "https"), parts.get("EndpointSuffix", "core.windows.net")
    endpoint = parts.get("BlobEndpoint") or f"{protocol}://{account}.blob.{suffix}"
    return {"storage_endpoint": endpoint, "storage_account": account, "storage_key": key}
