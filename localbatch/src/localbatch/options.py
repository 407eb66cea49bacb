"""The options of a Batch account and of a local Azure, with their defaults."""

from __future__ import annotations

DEVELOPMENT_ACCOUNT = "localbatch"
DEVELOPMENT_KEY = "bG9jYWxiYXRjaCBpcyBubyBzZWNyZXQsIGl0cyBrZXkgaXMgd2VsbCBrbm93bi4="
"""The account and the key that every LocalBatch has: well known, as Azurite's are."""
