"""A local Azure: Azurite for Blob Storage, and a server of the Azure Batch REST API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from localbatch.options import DEVELOPMENT_ACCOUNT, DEVELOPMENT_KEY

if TYPE_CHECKING:
    from localbatch.local_azure import LocalAzure
    from localbatch.local_batch import LocalBatch

__all__ = ["DEVELOPMENT_ACCOUNT", "DEVELOPMENT_KEY", "LocalAzure", "LocalBatch"]


def __getattr__(name: str) -> Any:
    # Importing the server is slow, so it is imported on first use.
    if name == "LocalAzure":
        from localbatch.local_azure import LocalAzure  # noqa: PLC0415

        return LocalAzure
    if name == "LocalBatch":
        from localbatch.local_batch import LocalBatch  # noqa: PLC0415

        return LocalBatch
    raise AttributeError(name)
