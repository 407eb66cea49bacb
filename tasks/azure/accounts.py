"""Clients for the two Azure accounts, created once per configuration and shared by all threads."""

from __future__ import annotations

from functools import lru_cache

from tasks.azure.batch import BatchAccount
from tasks.azure.blob import BlobAccount
from tasks.azure.block import configured_azure
from tasks.azure.settings import AzureSettings
from tasks.redaction import protect


def batch_account() -> BatchAccount:
    """Return the client of the configured Batch account.

    Raises:
        ConfigurationError: The settings are missing, incomplete or contradictory.
    """
    return _batch_account(configured_azure())


def blob_account() -> BlobAccount:
    """Return the client of the configured storage account.

    Raises:
        ConfigurationError: The settings are missing, incomplete or contradictory.
    """
    return _blob_account(configured_azure())


@lru_cache(maxsize=4)
def _batch_account(settings: AzureSettings) -> BatchAccount:
    _protect_keys(settings)
    return BatchAccount(settings)


@lru_cache(maxsize=4)
def _blob_account(settings: AzureSettings) -> BlobAccount:
    _protect_keys(settings)
    return BlobAccount(settings)


def _protect_keys(settings: AzureSettings) -> None:
    protect(*(key.get_secret_value() for key in (settings.batch_key, settings.storage_key) if key is not None))
