"""A local Azure: Azurite for Blob Storage, and a server of the Azure Batch REST API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from localbatch.local_azure import LocalAzure
    from localbatch.server import LocalBatch

__all__ = ["DEVELOPMENT_ACCOUNT", "DEVELOPMENT_KEY", "LocalAzure", "LocalBatch"]

DEVELOPMENT_ACCOUNT = "localbatch"
DEVELOPMENT_KEY = "bG9jYWxiYXRjaCBpcyBubyBzZWNyZXQsIGl0cyBrZXkgaXMgd2VsbCBrbm93bi4="
"""The account and the key that every LocalBatch has: well known, as Azurite's are."""


def __getattr__(name: str) -> Any:
    # The server is imported when it is asked for: the constants are cheap.
    if name == "LocalAzure":
        from localbatch.local_azure import LocalAzure  # noqa: PLC0415

        return LocalAzure
    if name == "LocalBatch":
        from localbatch.server import LocalBatch  # noqa: PLC0415

        return LocalBatch
    raise AttributeError(name)
