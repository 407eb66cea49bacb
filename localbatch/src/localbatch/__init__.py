"""A local Azure: Azurite for Blob Storage, and a server of the Azure Batch REST API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from localbatch.options import DEVELOPMENT_ACCOUNT, DEVELOPMENT_KEY

if TYPE_CHECKING:
    from localbatch.local_azure import LocalAzure
    from localbatch.local_batch import LocalBatch

__all__ = ["DEVELOPMENT_ACCOUNT", "DEVELOPMENT_KEY", "LocalAzure", "LocalBatch"]


def __getattr__(name: str) -> Any:
    # The server is imported when it is asked for: the constants are cheap.
    if name == "LocalAzure":
        from localbatch.local_azure import LocalAzure  # noqa: PLC0415

        return LocalAzure
    if name == "LocalBatch":
        from localbatch.local_batch import LocalBatch  # noqa: PLC0415

        return LocalBatch
    raise AttributeError(name)
