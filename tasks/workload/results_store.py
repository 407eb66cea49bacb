"""Stores of finished results by content key. They stop later runs from processing the same content again.

A container that does not exist, or that may not be read and written, is an error before a run creates anything. After
that, a store never fails a run: what cannot be read is processed again, and what cannot be written is processed again by
the next run. The user gets one warning for each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

from tasks.azure.accounts import blob_account
from tasks.azure.blob import BlobAccount, is_same_address
from tasks.azure.settings import results_location
from tasks.errors import ConfigurationError, NotFoundError, ServiceError, UsageError
from tasks.model.files import Source
from tasks.model.outputs import Scratch
from tasks.model.urls import AZ, URL, Place, parse_place, parse_url
from tasks.model.verdict import StoredResult
from tasks.text import printable
from tasks.workload.result_documents import (
    MAX_DOCUMENT_BYTES,
    DamagedError,
    parse_document,
    read_content,
    read_result,
    to_bytes,
    write_result,
)
from tasks.workload.result_files import RUN_SUFFIX, RUNS, ContainerFiles, FolderFiles, ResultFiles
from tasks.workload.source_results import Search, SourceResult, add_results

# A store is not used any longer once it has taken this much time, if that is also this much per result.
MAX_STORE_SECONDS = 60.0
MAX_SECONDS_PER_RESULT = 1.0

# A run lists the results of blobs again if another run has merged their files since.
MAX_LISTINGS = 3

NOT_READ = "Some stored results cannot be read, so their files are processed again"
NOT_STORED = "Some results cannot be stored, so the next run processes their files again"
NOT_MERGED = "The files of the results store cannot be merged"

Warn = Callable[[str], object]
_T = TypeVar("_T")


class ResultsStore:
    """A store of results. Its methods raise no errors.

    The result of a local file is a JSON document named after its content key. The results of blobs are in files with
    many results each, because requests cost time and money.

    Attributes:
        is_local: Whether the store is in a folder. Then it has the results of blobs as those of local files, too. In a
            container, that would take a request per result.
    """

    def __init__(self, files: ResultFiles, warn: Warn = lambda _: None, *, is_local: bool = False) -> None:
        self.is_local = is_local
        self._files = files
        self._warn = warn
        self._warned: set[str] = set()
        self._is_usable = True
        self._results = 0
        self._seconds = 0.0

    def get(self, content_key: str, scratch: Scratch | None = None) -> StoredResult | None:
        """Return a result, or None if it does not exist, is damaged or cannot be read.

        Args:
            content_key: The key of the result.
            scratch: The temporary file for its outputs.
        """
        return self._attempt(NOT_READ, lambda: self._get(content_key, scratch or Scratch()))

    def put(self, content_key: str, result: StoredResult) -> StoredResult:
        """Write a result, and return it with the outputs that were copied to the store. Results never expire."""
        return self._attempt(NOT_STORED, lambda: self._put(content_key, result)) or result

    def find(
        self, source: Source, content_keys: Collection[str], scratch: Scratch | None = None, *, merge: bool = True
    ) -> dict[str, StoredResult]:
        """Return the results of blobs that exist, by content key.

        They may have been added with this source, with a folder above or below its folder, or by another run.

        Args:
            source: Where the blobs are.
            content_keys: The keys of the results.
            scratch: The temporary file for their outputs.
            merge: Merge small files of the store, and remove the results of overwritten blobs from it.
        """
        if not content_keys:
            return {}
        search = self._attempt(
            NOT_READ, lambda: Search(self._files, source, content_keys, scratch or Scratch()), results=0
        )
        if search is None:
            return {}
        for number in range(MAX_LISTINGS):
            segments = self._attempt(NOT_READ, search.list_segments, results=0 if number else len(content_keys))
            for segment in segments or ():
                self._attempt(NOT_READ, partial(search.read, segment), results=0)
            if not search.is_interrupted:
                break
        if merge:
            self._attempt(NOT_MERGED, search.merge, results=0)
        return search.found

    def add(self, source: Source, results: Mapping[str, SourceResult]) -> dict[str, StoredResult]:
        """Write the results of blobs, by content key, all in one file unless they are large.

        Returns:
            Those that were written, with the outputs that were copied to the store.
        """
        if not results:
            return {}
        stored = self._attempt(NOT_STORED, lambda: add_results(self._files, source, results), results=len(results))
        if self.is_local:
            for item in results.values():
                if item.local_key:
                    self.put(item.local_key, item.result)
        return stored or {}

    @property
    def files(self) -> ResultFiles:
        """The files of the store."""
        return self._files

    def put_manifest(self, flow_run_id: str, blocks: Iterable[bytes]) -> None:
        """Write the manifest of a run."""
        self._attempt(
            "The manifest of the run cannot be stored",
            lambda: self._files.write(f"{RUNS}{flow_run_id}{RUN_SUFFIX}", blocks),
        )

    def disable(self, problem: str) -> None:
        """Do not use the store any longer, and warn the user."""
        self._is_usable = False
        self._warn_once(problem)

    def _attempt(self, problem: str, action: Callable[[], _T], results: int = 1) -> _T | None:
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
            self._results += results
            self._seconds += time.monotonic() - started
            if self._seconds > max(MAX_STORE_SECONDS, self._results * MAX_SECONDS_PER_RESULT) and self._is_usable:
                self.disable("The results store is slow. This run does not use it any longer.")

    def _warn_once(self, message: str) -> None:
        problem = message.partition(":")[0]
        if problem not in self._warned:
            self._warned.add(problem)
            self._warn(message)

    def _get(self, content_key: str, scratch: Scratch) -> StoredResult | None:
        if (content := read_content(self._files, f"{content_key}.json", MAX_DOCUMENT_BYTES)) is None:
            return None
        document = parse_document(content)
        if document.get("content_key") != content_key:
            raise DamagedError
        return read_result(self._files, document, scratch)

    def _put(self, content_key: str, result: StoredResult) -> StoredResult:
        document, stored = write_result(self._files, content_key, result)
        self._files.write(f"{content_key}.json", [to_bytes(document)])
        return stored


class FolderStore(ResultsStore):
    """A store of results in a folder."""

    def __init__(self, folder: Path, warn: Warn = lambda _: None) -> None:
        super().__init__(FolderFiles(folder), warn, is_local=True)


class ContainerStore(ResultsStore):
    """A store of results in a blob container of the configured storage account."""

    def __init__(self, account: BlobAccount, container: str, warn: Warn = lambda _: None, prefix: str = "") -> None:
        super().__init__(ContainerFiles(account, container, prefix), warn)
        self._account = account
        self._container = container
        self._prefix = prefix

    def check(self) -> None:
        """Check that the container exists, and can be read and written. Create nothing.

        Raises:
            ConfigurationError: It does not exist, or access is denied.
        """
        try:
            self._account.check_access(self._container, f"{self._prefix}check")
        except NotFoundError as error:
            raise ConfigurationError(
                f"TOPN_RESULTS names the container `{self._container}`, which does not exist. Create it, or unset "
                "TOPN_RESULTS to keep the results in the state folder."
            ) from error
        except ServiceError as error:
            if error.transient:
                self.disable(f"The results store is not used: {error}")
                return
            raise ConfigurationError(
                f"TOPN_RESULTS names the container `{self._container}`, which cannot be used: {str(error).rstrip('.')}. "
                "Get the role Storage Blob Data Contributor for it, or unset TOPN_RESULTS to keep the results in the state "
                "folder."
            ) from error


def results_store(run: str, warn: Warn) -> ResultsStore:
    """Return the store at the location in `TOPN_RESULTS`; by default in the state folder.

    All steps of a run share one store, so that a store that fails delays the run once.

    Args:
        run: Identifies the run.
        warn: Shows a warning to the user.

    Raises:
        ConfigurationError: The location is a URL, but not that of a container of the storage account that exists and may
            be read and written.
    """
    return _results_store(results_location(), run, warn)


@lru_cache(maxsize=4)
def _results_store(location: str, run: str, warn: Warn) -> ResultsStore:
    del run
    if not URL.match(location):
        return FolderStore(Path(location), warn)
    if location.startswith(("http://", "https://")):
        parse_url("TOPN_RESULTS", location)
    account = blob_account()
    place = _parse_place(location, account)
    prefix = place.path.strip("/")
    if not place.container:
        raise ConfigurationError(f"TOPN_RESULTS is {location!r}, which is not the URL of a blob container.")
    if place.account and not is_same_address(place.account, account.endpoint):
        raise ConfigurationError(
            f"TOPN_RESULTS is {location!r}, which is not a container of the storage account {account.endpoint}. "
            "Use a container of that account, or a folder."
        )
    if prefix and {"", ".", ".."} & set(prefix.split("/")):
        raise ConfigurationError(f"TOPN_RESULTS is {location!r}, whose path has an empty part, `.` or `..`. Remove it.")
    store = ContainerStore(account, place.container, warn, f"{prefix}/" if prefix else "")
    store.check()
    return store


def _parse_place(location: str, account: BlobAccount) -> Place:
    # The endpoint of the configured account may be any host.
    if location.startswith(f"{account.endpoint}/"):
        location = AZ + unquote(location.removeprefix(f"{account.endpoint}/"), errors="surrogateescape")
    try:
        return parse_place("TOPN_RESULTS", location)
    except UsageError as error:
        raise ConfigurationError(str(error)) from error
