"""A local Azure: Azurite for Blob Storage, and a server of the Azure Batch REST API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from localbatch.server import LocalAzure, LocalBatch

__all__ = ["DEVELOPMENT_ACCOUNT", "DEVELOPMENT_KEY", "LocalAzure", "LocalBatch"]

DEVELOPMENT_ACCOUNT = "localbatch"
DEVELOPMENT_KEY = "bG9jYWxiYXRjaCBpcyBubyBzZWNyZXQsIGl0cyBrZXkgaXMgd2VsbCBrbm93bi4="
"""The account and the key that every LocalBatch has: well known, as Azurite's are."""


def __getattr__(name: str) -> Any:
    # The server is imported when it is asked for: the constants are cheap.
    if name in ("LocalAzure", "LocalBatch"):
        from localbatch import server  # noqa: PLC0415

        return getattr(server, name)
    raise AttributeError(name)
