"""Stores of finished results by content key. They stop later runs from processing the same content again.

A store never fails a run: what cannot be read is processed again, and what cannot be written is processed again by the
next run. The user gets one warning for each.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tasks.azure.accounts import blob_account
from tasks.azure.blob import BlobAccount, is_same_address
from tasks.azure.settings import results_location, state_folder
from tasks.errors import ConfigurationError, NotFoundError, ServiceError
from tasks.files import ensure_private_folder, write_atomically
from tasks.model.files import Source
from tasks.model.outputs import BLOCK_BYTES, Output, Outputs, Scratch
from tasks.model.urls import parse_url
from tasks.model.verdict import Provenance, StoredResult
from tasks.text import printable

# Larger outputs are files of their own beside the entry.
MAX_INLINE_BYTES = 64 * 1024

# More than an entry with 100 outputs. A larger file is no entry.
MAX_ENTRY_BYTES = 16 * 1024 * 1024

# A store is not used any longer once it has taken this much time, if that is also this much per result.
MAX_STORE_SECONDS = 60.0
MAX_SECONDS_PER_RESULT = 1.0

Warn = Callable[[str], object]


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceResult:
    """A result of a blob.

    Attributes:
        blob: The name of the blob.
        result: The result.
        local_key: Content key of a local file with the same content; "" if unknown.
    """

    blob: str
    result: StoredResult
    local_key: str = ""


class ResultsStore(ABC):
    """A store of results by content key, with one JSON document per result. Its methods raise no errors."""

    def __init__(self, warn: Warn = lambda _: None) -> None:
        self._warn = warn
        self._warned: set[str] = set()
        self._is_usable = True
        self._calls = 0
        self._seconds = 0.0

    @abstractmethod
    def _read(self, name: str) -> Iterator[bytes]:
        """Yield the content of a file."""

    @abstractmethod
    def _write(self, name: str, blocks: Iterable[bytes]) -> None:
        """Write a file, and replace an existing one."""

    def get(self, content_key: str, scratch: Scratch | None = None) -> StoredResult | None:
        """Return a result, or None if it does not exist, is damaged or cannot be read.

        Args:
            content_key: The key of the result.
            scratch: The temporary file for its outputs.
        """
        return self._attempt(
            "Some stored results cannot be read, so their files are processed again",
            lambda: self._find(content_key, scratch or Scratch()),
        )

    def put(self, content_key: str, result: StoredResult) -> None:
        """Write a result. Results never expire."""
        self._attempt(
            "Some results cannot be stored, so the next run processes their files again",
            lambda: self._put(content_key, result),
        )

    def find(self, source: Source, content_keys: Iterable[str], scratch: Scratch) -> dict[str, StoredResult]:
        """Return the stored results of blobs of one folder, by content key."""
        del source
        stored = ((key, self.get(key, scratch)) for key in content_keys)
        return {key: result for key, result in stored if result is not None}

    def add(self, source: Source, results: Mapping[str, SourceResult]) -> None:
        """Write results of blobs of one folder, by content key."""
        del source
        for key, each in results.items():
            self.put(key, each.result)

    def put_manifest(self, flow_run_id: str, blocks: Iterable[bytes]) -> None:
        """Write the manifest of a run."""
        self._attempt(
            "The manifest of the run cannot be stored", lambda: self._write(f"runs/{flow_run_id}.json", blocks)
        )

    def disable(self, problem: str) -> None:
        """Do not use the store any longer, and warn the user."""
        self._is_usable = False
        self._warn_once(problem)

    def _attempt(self, problem: str, action: Callable[[], StoredResult | None]) -> StoredResult | None:
        if not self._is_usable:
            return None
        started = time.monotonic()
        try:
            return action()
        except Exception as error:  # noqa: BLE001 - no error of the store may fail the run
            reason = printable(error.strerror or "") if isinstance(error, OSError) else str(error).rstrip(".")
            self._warn_once(f"{problem}: {reason}.")
            # The request was retried for minutes.
            if isinstance(error, ServiceError) and error.transient:
                self._is_usable = False
            return None
        finally:
            self._calls += 1
            self._seconds += time.monotonic() - started
            if self._seconds > max(MAX_STORE_SECONDS, self._calls * MAX_SECONDS_PER_RESULT) and self._is_usable:
                self.disable("The results store is slow. This run does not use it any longer.")

    def _warn_once(self, message: str) -> None:
        problem = message.partition(":")[0]
        if problem not in self._warned:
            self._warned.add(problem)
            self._warn(message)

    def _find(self, content_key: str, scratch: Scratch) -> StoredResult | None:
        try:
            return self._get(content_key, scratch)
        except FileNotFoundError:
            return None
        except NotFoundError as error:
            if error.code == "ContainerNotFound":
                raise
            return None

    def _get(self, content_key: str, scratch: Scratch) -> StoredResult:
        content = b""
        for block in self._read(f"{content_key}.json"):
            content += block
            if len(content) > MAX_ENTRY_BYTES:
                raise ValueError("an entry is damaged")
        try:
            document = _parse(content, content_key)
            outputs = {
                name: self._load(f"{content_key}.{name}", stored, scratch)
                for name, stored in document["outputs"].items()
            }
            return StoredResult(
                outputs=Outputs(outputs),
                provenance=Provenance(**document["provenance"]),
                sha256=document.get("input", ""),
            )
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError("an entry is damaged") from error

    def _load(self, name: str, stored: str | dict[str, str], scratch: Scratch) -> Output:
        """Load an output from its entry, or from the file that its entry refers to."""
        if isinstance(stored, str):
            return scratch.add([stored.encode()])
        if "base64" in stored:
            return scratch.add([base64.b64decode(stored["base64"], validate=True)])
        output = scratch.add(self._read(name))
        if _hash(output) != stored["sha256"]:
            raise ValueError("the content does not match")
        return output

    def _put(self, content_key: str, result: StoredResult) -> None:
        outputs: dict[str, str | dict[str, str]] = {}
        for name, output in result.outputs.parts.items():
            if output.size_bytes > MAX_INLINE_BYTES:
                self._write(f"{content_key}.{name}", output.blocks())
                outputs[name] = {"sha256": _hash(output)}
                continue
            content = output.read()
            try:
                # People can read text.
                outputs[name] = content.decode()
            except UnicodeDecodeError:
                outputs[name] = {"base64": base64.b64encode(content).decode()}
        document = {
            "content_key": content_key,
            "outputs": outputs,
            "provenance": asdict(result.provenance),
            "input": result.sha256,
        }
        self._write(f"{content_key}.json", [json.dumps(document | {"sha256": _checksum(document)}).encode()])


class FolderStore(ResultsStore):
    """A store of results in a folder."""

    def __init__(self, folder: Path, warn: Warn = lambda _: None) -> None:
        super().__init__(warn)
        self._folder = folder

    def _read(self, name: str) -> Iterator[bytes]:
        with (self._folder / name).open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                yield block

    def _write(self, name: str, blocks: Iterable[bytes]) -> None:
        if self._folder.parent == state_folder():
            ensure_private_folder(self._folder.parent)
        write_atomically(self._folder / name, blocks)


class ContainerStore(ResultsStore):
    """A store of results in a blob container of the configured storage account."""

    def __init__(self, account: BlobAccount, container: str, warn: Warn = lambda _: None) -> None:
        super().__init__(warn)
        self._account = account
        self._container = container

    def _read(self, name: str) -> Iterator[bytes]:
        return self._account.download(self._container, name)

    def _write(self, name: str, blocks: Iterable[bytes]) -> None:
        with Scratch().add(blocks).open() as file:
            self._account.upload_archive(self._container, name, file)

    def check(self) -> None:
        """Check that the container exists.

        Raises:
            ConfigurationError: It does not.
        """
        try:
            self._account.get_container_metadata(self._container)
        except NotFoundError as error:
            raise ConfigurationError(
                f"TOPN_RESULTS names the container `{self._container}`, which does not exist. Create it, or unset "
                "TOPN_RESULTS to keep the results in the state folder."
            ) from error
        except ServiceError as error:
            self.disable(f"The results store is not used: {error}")


def results_store(run: str, warn: Warn) -> ResultsStore:
    """Return the store at the location in `TOPN_RESULTS`; by default in the state folder.

    All steps of a run share one store, so that a store that fails delays the run once.

    Args:
        run: Identifies the run.
        warn: Shows a warning to the user.

    Raises:
        ConfigurationError: The location is a URL, but not that of an existing container of the storage account.
    """
    return _results_store(results_location(), run, warn)


@lru_cache(maxsize=4)
def _results_store(location: str, run: str, warn: Warn) -> ResultsStore:
    del run
    if not location.startswith(("http://", "https://")):
        return FolderStore(Path(location), warn)
    parse_url("TOPN_RESULTS", location)
    account = blob_account()
    base, _, container = location.rstrip("/").rpartition("/")
    if base.endswith("/") or not container:
        raise ConfigurationError(f"TOPN_RESULTS is {base!r}, which is not the URL of a blob container.")
    if not is_same_address(base, account.endpoint):
        raise ConfigurationError(
            f"TOPN_RESULTS is {location!r}, which is not a container of the storage account {account.endpoint}. "
            "Use a container of that account, or a folder."
        )
    store = ContainerStore(account, container, warn)
    store.check()
    return store


def _parse(content: bytes, content_key: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(content)
    if document.pop("sha256") != _checksum(document) or document["content_key"] != content_key:
        raise ValueError("the content does not match")
    return document


def _checksum(document: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _hash(output: Output) -> str:
    digest = hashlib.sha256()
    for block in output.blocks():
        digest.update(block)
    return digest.hexdigest()
