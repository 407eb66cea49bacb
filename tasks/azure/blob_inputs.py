"""Finding input files in Blob Storage."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from tasks.azure.blob import BlobAccount
from tasks.azure.client import NO_IDENTITY_CODE
from tasks.azure.values import ListedBlob
from tasks.errors import ConfigurationError, NotFoundError, ServiceError, UsageError
from tasks.model.inputs import FoundFile, before_wildcard, matches
from tasks.model.urls import URL, Place, parse_place
from tasks.text import printable

# An unknown account has no address. Each retry of a connection takes longer than the one before.
CONNECTION_RETRIES = 1


class BlobFinder:
    """Finds blobs by the URLs and patterns that users write.

    Args:
        account: The configured storage account.
        results: Where results are stored. If that is in Blob Storage, it is left out of folders and patterns.
    """

    def __init__(self, account: BlobAccount, results: str = "") -> None:
        self._account = account
        self._left_out = self.address(results) if URL.match(results) else None

    def address(self, given: str) -> str:
        """Return the names of account and container, and the path of a URL, with a slash at the end.

        Raises:
            UsageError: It is no URL of Blob Storage.
        """
        place = parse_place("The root", given)
        with _explained(given):
            parts = (self._account.at(place.account).name, place.container, place.path.removesuffix("/"))
        return "".join(f"{part}/" for part in parts if part)

    def find(self, given: str) -> tuple[str, list[FoundFile]]:
        """Return the address of the root of an input, and its blobs, which have their addresses as names.

        A blob with the same spelling wins over a folder, and both win over a pattern.

        Raises:
            UsageError: No blob matches, or the account or the container does not exist or may not be read.
        """
        place = parse_place("The input", given)
        if not place.container:
            raise UsageError(f"{printable(given)} names no container: add one, such as az://texts/**/*.txt.")
        with _explained(given):
            account = self._account.at(place.account)
            folder, blobs = self._list(account, place)
            container = f"{account.name}/{place.container}"
            # The listing is read here, page by page.
            found = [
                FoundFile(
                    path=account.blob_url(place.container, blob.name),
                    name=f"{container}/{blob.name}",
                    size_bytes=blob.size_bytes,
                    etag=blob.etag,
                    problem=blob.problem,
                    container=container,
                    folder=folder,
                )
                for blob in blobs
                if self._left_out is None or not f"{container}/{blob.name}".startswith(self._left_out)
            ]
        if not found:
            raise UsageError(
                f"{printable(given)} matches no blob: name a blob, a folder, or a pattern that matches a blob."
            )
        return f"{container}/{folder}", found

    def _list(self, account: BlobAccount, place: Place) -> tuple[str, Iterable[ListedBlob]]:
        """Return the folder of an input, and its blobs."""

        def listed(prefix: str, page_size: int | None = None) -> Iterator[ListedBlob]:
            return account.list_blobs(place.container, prefix, page_size=page_size, retry_connect=CONNECTION_RETRIES)

        path = place.path
        if path and (blob := next(listed(path, 1), None)) is not None and blob.name == path:
            return path[: path.rfind("/") + 1], [blob]
        parts = path.split("/") if path else []
        fixed = 0
        while fixed < len(parts) and (
            not glob.has_magic(parts[fixed]) or next(listed("/".join([*parts[: fixed + 1], ""]), 1), None) is not None
        ):
            fixed += 1
        folder = "".join(f"{part}/" for part in parts[:fixed])
        if fixed == len(parts):
            # The last part of a path with a slash at the end is empty.
            folder = path if path.endswith("/") else folder
            return folder, listed(folder)
        pattern = "/".join(parts[fixed:])
        found = listed(folder + before_wildcard(pattern))
        return folder, (blob for blob in found if matches(blob.name.removeprefix(folder), pattern))


@contextmanager
def _explained(given: str) -> Iterator[None]:
    """Raise errors that the user can repair as usage errors."""
    try:
        yield
    except ConfigurationError as error:
        raise UsageError(f"{printable(given)} cannot be used: {error}") from error
    except NotFoundError as error:
        raise UsageError(
            f"The container of {printable(given)} does not exist. Check its name and its account."
        ) from error
    except ServiceError as error:
        if error.code == "HostUnknown":
            raise UsageError(f"The storage account of {printable(given)} does not exist. Check its name.") from error
        if error.code == NO_IDENTITY_CODE:
            raise UsageError(
                f"{printable(given)} is in another storage account than the configured key. Run `az login`, or use a managed "
                "identity that may read it."
            ) from error
        if error.transient:
            raise
        raise UsageError(
            f"{printable(given)} may not be read ({str(error).rstrip('.')}). Assign the role "
            '"Storage Blob Data Reader" on its account.'
        ) from error
