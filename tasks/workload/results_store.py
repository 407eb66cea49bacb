"""Stores of finished results by content key. They stop later runs from processing the same content again."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from tasks.azure.accounts import blob_account
from tasks.azure.blob import BlobAccount
from tasks.azure.settings import results_location, state_folder
from tasks.errors import ConfigurationError, NotFoundError
from tasks.files import ensure_private_folder, write_atomically
from tasks.model.verdict import Provenance, StoredResult
from tasks.urls import parse_url


class ResultsStore(Protocol):
    """A store of results by content key."""

    def get(self, content_key: str) -> StoredResult | None:
        """Return a result, or None if it does not exist or is damaged."""

    def put(self, content_key: str, result: StoredResult) -> None:
        """Write a result. Results never expire."""


class FolderStore:
    """A store of results in a folder, with one JSON file per result."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, content_key: str) -> StoredResult | None:
        """Return a result, or None if it does not exist or is damaged."""
        try:
            return _from_json((self._folder / f"{content_key}.json").read_bytes(), content_key)
        except OSError:
            return None

    def put(self, content_key: str, result: StoredResult) -> None:
        """Write a result. Results never expire."""
        if self._folder.parent == state_folder():
            ensure_private_folder(self._folder.parent)
        write_atomically(self._folder / f"{content_key}.json", _to_json(content_key, result))


class ContainerStore:
    """A store of results in a blob container of the configured storage account, with one JSON blob per result."""

    def __init__(self, account: BlobAccount, container: str) -> None:
        self._account = account
        self._container = container

    def get(self, content_key: str) -> StoredResult | None:
        """Return a result, or None if it does not exist or is damaged."""
        try:
            return _from_json(self._account.download(self._container, f"{content_key}.json"), content_key)
        except NotFoundError:
            return None

    def put(self, content_key: str, result: StoredResult) -> None:
        """Write a result. Results never expire."""
        self._account.upload_bytes(self._container, f"{content_key}.json", _to_json(content_key, result))


def results_store() -> ResultsStore:
    """Return the store at the location in `TOPN_RESULTS`; by default in the state folder.

    Raises:
        ConfigurationError: The URL is not the URL of a blob container.
    """
    location = results_location()
    if not location.startswith(("http://", "https://")):
        return FolderStore(Path(location))
    container = parse_url("TOPN_RESULTS", location).path.rstrip("/").rpartition("/")[2]
    if not container:
        raise ConfigurationError(f"TOPN_RESULTS is {location!r}, which is not the URL of a blob container.")
    return ContainerStore(blob_account(), container)


def _to_json(content_key: str, result: StoredResult) -> bytes:
    outputs = {name: _as_text(content) for name, content in result.outputs.items()}
    provenance = asdict(result.provenance)
    return json.dumps({"content_key": content_key, "outputs": outputs, "provenance": provenance}).encode()


def _from_json(content: bytes, content_key: str) -> StoredResult | None:
    try:
        found: dict[str, Any] = json.loads(content)
        if found["content_key"] != content_key:
            return None
        outputs = {name: _as_bytes(text) for name, text in found["outputs"].items()}
        return StoredResult(outputs=outputs, provenance=Provenance(**found["provenance"]))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return None


def _as_text(content: bytes) -> str | dict[str, str]:
    """Return text unchanged, so that people can read it, and encode other content in Base64."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode()}


def _as_bytes(text: str | dict[str, str]) -> bytes:
    return text.encode() if isinstance(text, str) else base64.b64decode(text["base64"], validate=True)
