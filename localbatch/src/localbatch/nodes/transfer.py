"""Downloads of resource files and uploads of output files, with the failure codes of the service.

Node agents access blobs over HTTP with the shared access signature in the URL. Importing a storage library would delay
the first Batch task by half a second.

https://learn.microsoft.com/rest/api/batchservice/tasks/create-task#resourcefile
https://learn.microsoft.com/rest/api/storageservices/operations-on-blobs
"""

from __future__ import annotations

import contextlib
import http.client
import re
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, TextIO
from urllib.parse import parse_qs, quote, urlencode, urlsplit
from xml.etree import ElementTree as ET

from localbatch.account.specs import Json
from localbatch.processes.certificate import Certificate

MAX_ATTEMPTS = 3
RETRY_PAUSE_SECONDS = 0.2
TIMEOUT_SECONDS = 60.0
# Bearer tokens need version 2017-11-09 of the Blob service or later.
BEARER_VERSION = "2020-10-02"
RETRIED_STATUSES = frozenset({408, 429, 500, 502, 503, 504})

# Category, code and message of failures, by HTTP status.
DOWNLOAD_FAILURES = {
    404: ("usererror", "BlobNotFound", "One of the specified Azure blob(s) is not found"),
    403: ("usererror", "BlobAccessDenied", "Access for one of the specified Azure blob(s) is denied"),
}
UPLOAD_FAILURES = {
    404: (
        "usererror",
        "FileUploadContainerNotFound",
        "One of the specified Azure container(s) was not found while attempting to upload an output file",
    ),
    403: (
        "usererror",
        "FileUploadAccessDenied",
        "Access was denied to one of the specified Azure container(s) while attempting to upload an output file",
    ),
}


class TransferError(Exception):
    """A file could not be downloaded or uploaded; `failure` is the failureInfo."""

    def __init__(self, category: str, code: str, message: str, **details: str) -> None:
        super().__init__(f"{code}: {message}")
        pairs = [{"name": name, "value": value} for name, value in details.items()]
        self.failure: Json = {"category": category, "code": code, "message": message, "details": pairs}


class StorageClient:
    """An HTTP client of the storage account, which checks shared access signatures by the clock of the service."""

    def __init__(
        self,
        now: Callable[[], datetime],
        certificate: Certificate | None = None,
        token: Callable[[], str] | None = None,
    ) -> None:
        """Create a client.

        Args:
            now: The clock of the service.
            certificate: The certificate of the storage account, which is trusted.
            token: Issues storage tokens to the identity of a node; None if nodes have no identity.
        """
        self._now = now
        self._token = token
        context = certificate.client_context() if certificate else None
        # Everything is on this machine, so no proxies. URLs with file: must not read the files of this machine.
        self._opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(context=context),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.UnknownHandler(),
        ):
            self._opener.add_handler(handler)

    def send(
        self,
        url: str,
        failures: Mapping[int, tuple[str, str, str]],
        other: str,
        *,
        source: Path | None = None,
        headers: Mapping[str, str] | None = None,
        by_identity: bool = False,
    ) -> IO[bytes]:
        """Download a URL, or upload a file to it. Retry transient errors.

        Args:
            url: The URL with its signature.
            failures: Category, code and message of a failure, by HTTP status.
            other: The prefix of the codes of other failures.
            source: The file to upload; None to download.
            headers: The headers of the request.
            by_identity: Whether the request uses the identity of the node instead of a signature.

        Raises:
            TransferError: One of `failures`, or a code with the prefix `other`.
        """
        place = url.partition("?")[0]  # The query may contain a signature.
        if not is_in_time(url, self._now()):
            # Only the clock of the Batch account can be moved, not that of the storage account.
            details = {"Url": place, "HttpStatus": "403", "Message": "Signature not valid in the specified time frame"}
            raise TransferError(*failures[403], **details)
        headers = dict(headers or {})
        if by_identity:
            if not self._token:
                reason = "The nodes have no identity. Start localbatch with --oauth basic."
                raise TransferError(*failures[403], Url=place, Message=reason)
            headers |= {"Authorization": f"Bearer {self._token()}", "x-ms-version": BEARER_VERSION}
        for last in (False,) * (MAX_ATTEMPTS - 1) + (True,):
            try:
                return self._send_once(url, source, headers)
            except urllib.error.HTTPError as error:
                error.close()
                status, reason = error.code, error.headers.get("x-ms-error-code") or error.reason
                if last or status not in RETRIED_STATUSES:
                    unexpected = (
                        "servererror",
                        f"{other}MiscError",
                        "The storage service returned an unexpected response",
                    )
                    details = {"Url": place, "HttpStatus": str(status), "Message": str(reason)}
                    raise TransferError(*failures.get(status, unexpected), **details) from None
            except (OSError, ValueError, http.client.HTTPException) as error:
                if last or isinstance(error, ValueError):
                    timed_out = isinstance(getattr(error, "reason", error), TimeoutError)
                    code = f"{other}TimedOut" if timed_out else f"{other}MiscError"
                    message = "The storage service could not be reached"
                    raise TransferError("servererror", code, message, Url=place, Message=str(error)) from error
            time.sleep(RETRY_PAUSE_SECONDS)
        raise AssertionError  # The last attempt returns or raises.

    def _send_once(self, url: str, source: Path | None, headers: Mapping[str, str]) -> IO[bytes]:
        with contextlib.ExitStack() as stack:
            request = urllib.request.Request(url, headers=dict(headers))  # noqa: S310 - the opener only has http and https.
            if source:
                size = source.stat().st_size
                request.method = "PUT"
                request.data = stack.enter_context(source.open("rb")) if size else b""
                request.add_header("Content-Length", str(size))
            answer: IO[bytes] = self._opener.open(request, timeout=TIMEOUT_SECONDS)
            return answer


def is_in_time(url: str, now: datetime) -> bool:
    """Whether the shared access signature of a URL is valid at an instant. A URL without one always is.

    https://learn.microsoft.com/rest/api/storageservices/create-service-sas: `st` and `se`
    https://learn.microsoft.com/rest/api/storageservices/create-user-delegation-sas: `skt` and `ske` of the key
    """
    query = parse_qs(urlsplit(url).query)
    starts = [_instant(text) for name in ("st", "skt") for text in query.get(name, ())]
    ends = [_instant(text) for name in ("se", "ske") for text in query.get(name, ())]
    return all(start is None or start <= now for start in starts) and all(end is None or now < end for end in ends)


def _instant(text: str) -> datetime | None:
    """Parse a date with an optional time. Return None for others, which the storage account refuses."""
    try:
        at = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=timezone.utc)


def fetch_resource_files(
    storage: StorageClient, files: Iterable[Json], directory: Path, *, cancelled: Callable[[], bool]
) -> None:
    """Download resource files into a task's working directory.

    Raises:
        TransferError: BlobNotFound, BlobAccessDenied, BlobDownloadTimedOut, BlobDownloadMiscError,
            ResourceDirectoryCreateFailed or ResourceFileCreateFailed. Earlier files stay.
    """
    for file in files:
        by_identity = bool(file.get("identityReference"))
        for url, name in _expand(storage, file, by_identity=by_identity):
            if cancelled():
                return
            path = _destination(directory, name)
            _download(storage, url, path, by_identity=by_identity)
            # fileMode is octal, by default 0770.
            path.chmod(int(file.get("fileMode") or "0770", 8))


def _expand(storage: StorageClient, file: Json, *, by_identity: bool) -> Iterator[tuple[str, str]]:
    """Yield the URL and the path of each blob of a resource file."""
    if file.get("httpUrl"):
        yield file["httpUrl"], file["filePath"]
        return
    container = file["storageContainerUrl"]
    for name in _list_blobs(storage, container, file.get("blobPrefix") or "", by_identity=by_identity):
        folder = f"{file['filePath']}/" if file.get("filePath") else ""
        yield _blob_url(container, name), folder + name


def _list_blobs(storage: StorageClient, container: str, prefix: str, *, by_identity: bool) -> Iterator[str]:
    marker: str | None = ""
    while marker is not None:
        query = urlencode({"restype": "container", "comp": "list", "prefix": prefix, "marker": marker})
        url = f"{container}{'&' if urlsplit(container).query else '?'}{query}"
        with storage.send(url, DOWNLOAD_FAILURES, "BlobDownload", by_identity=by_identity) as answer:
            listing = ET.fromstring(answer.read())  # noqa: S314 - the storage service of this machine wrote it.
        yield from (name.text for name in listing.iterfind("Blobs/Blob/Name") if name.text)
        marker = listing.findtext("NextMarker") or None


def _blob_url(container: str, name: str) -> str:
    parts = urlsplit(container)
    return parts._replace(path=f"{parts.path.rstrip('/')}/{quote(name)}").geturl()


def _destination(directory: Path, name: str) -> Path:
    path = directory / name.lstrip("/")
    if not path.resolve().is_relative_to(directory.resolve()):
        message = "A resource file would be outside the working directory"
        raise TransferError("usererror", "ResourceFileCreateFailed", message, FilePath=name)
    try:
        # parents=True would create the directory of the task again if it was removed meanwhile.
        for parent in reversed(path.relative_to(directory).parents):
            (directory / parent).mkdir(exist_ok=True)
    except OSError as error:
        raise TransferError(
            "servererror",
            "ResourceDirectoryCreateFailed",
            "A directory could not be created",
            FilePath=name,
            Message=str(error),
        ) from error
    return path


def _download(storage: StorageClient, url: str, path: Path, *, by_identity: bool) -> None:
    with storage.send(url, DOWNLOAD_FAILURES, "BlobDownload", by_identity=by_identity) as answer:
        try:
            with path.open("wb") as file:
                shutil.copyfileobj(answer, file)
        except (OSError, http.client.HTTPException) as error:
            code = "BlobDownloadTimedOut" if isinstance(error, TimeoutError) else "ResourceFileWriteFailed"
            message = "A resource file could not be written"
            raise TransferError("servererror", code, message, FilePath=str(path), Message=str(error)) from error


def send_output_files(
    storage: StorageClient,
    files: Iterable[Json],
    directory: Path,
    environment: Mapping[str, str],
    *,
    succeeded: bool,
) -> None:
    """Upload the output files whose condition is met, and log it next to stdout.txt.

    Raises:
        TransferError: FileUploadContainerNotFound, FileUploadAccessDenied, FileUploadTimedOut or
            FileUploadMiscError: the first error, after all files were tried.
    """
    wanted = [file for file in files if _condition_is_met(file, succeeded=succeeded)]
    if not wanted:
        return
    first: TransferError | None = None
    task_directory = directory.parent
    with (
        (task_directory / "fileuploadout.txt").open("w") as out,
        (task_directory / "fileuploaderr.txt").open("w") as err,
    ):
        for file in wanted:
            try:
                _upload_matches(storage, file, directory, environment, out)
            except TransferError as error:
                print(f"{file['filePattern']}: {error} {error.failure['details']}", file=err)
                first = first or error
    if first:
        raise first


def _condition_is_met(file: Json, *, succeeded: bool) -> bool:
    condition: str = file.get("uploadOptions", {}).get("uploadCondition", "taskcompletion").lower()
    return condition == "taskcompletion" or (condition == "tasksuccess") == succeeded


def _upload_matches(
    storage: StorageClient, file: Json, directory: Path, environment: Mapping[str, str], log: TextIO
) -> None:
    container: Json = file["destination"]["container"]
    pattern = expand_variables(file["filePattern"], environment)
    headers = {h["name"]: h.get("value") or "" for h in container.get("uploadHeaders") or ()}
    prefix = (container.get("path") or "").strip("/")
    is_wild = re.search(r"[*?\[]", pattern) is not None
    for path, relative in find_files(pattern, directory):
        name = "/".join(filter(None, (prefix, relative))) if is_wild else prefix or relative
        by_identity = bool(container.get("identityReference"))
        _upload(storage, path, _blob_url(container["containerUrl"], name), headers, by_identity=by_identity)
        print(f"{path} -> {name}", file=log)


def expand_variables(pattern: str, environment: Mapping[str, str]) -> str:
    """Replace `$NAME` and `${NAME}` by their values in the environment of a task."""
    return re.sub(r"\$(?:(\w+)|\{(\w+)\})", lambda match: environment.get(match[1] or match[2], match[0]), pattern)


WILDCARDS = re.compile(r"[*?\[]")


def find_files(pattern: str, directory: Path) -> list[tuple[Path, str]]:
    """Return the files that match a pattern, each with the part of its path that becomes the blob name.

    That part is relative to the last folder before the first wildcard.

    https://learn.microsoft.com/rest/api/batchservice/tasks/create-task#outputfile: `*` matches within a name, `**` matches
    any directories, and `?`, `[..]` and `[!..]` match one character. Only a dot matches a leading dot.
    """
    root, parts = Path("/") if pattern.startswith("/") else directory, pattern.strip("/").split("/")
    wild = 0
    # A folder that exists is no wildcard: the path of the node can contain any characters.
    while wild < len(parts) - 1 and (not WILDCARDS.search(parts[wild]) or (root / parts[wild]).exists()):
        root /= parts[wild]
        wild += 1
    root = root.resolve()
    expression = re.compile(_translate("/".join(parts[wild:])))
    if not expression.pattern or not root.is_dir():
        return []
    candidates = root.rglob("*") if wild < len(parts) - 1 or "**" in parts[wild] else root.iterdir()
    found = [(path, path.relative_to(root).as_posix()) for path in candidates]
    return sorted((path, name) for path, name in found if expression.fullmatch(name) and path.is_file())


def _translate(pattern: str) -> str:
    """Translate a pattern into a regular expression."""
    pieces = re.split(r"(\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\])", pattern)
    expression, at_start = "", True
    for piece in filter(None, pieces):
        no_dot = r"(?!\.)" if at_start else ""
        if piece == "**/":
            expression += r"(?:(?!\.)[^/]+/)*"
        elif piece == "**":
            expression += r"(?:(?!\.)[^/]+/)*(?!\.)[^/]+"
        elif piece in {"*", "?"}:
            expression += no_dot + r"[^/]" + piece.replace("?", "")
        elif piece.startswith("[") and piece.endswith("]"):
            inner = piece[1:-1].replace("\\", r"\\")
            expression += f"{no_dot}[^{inner[1:]}]" if inner.startswith("!") else f"{no_dot}[{inner}]"
        else:
            expression += re.escape(piece)
        at_start = piece.endswith("/")
    return expression


def send_log(storage: StorageClient, container_url: str, name: str, text: str, *, by_identity: bool) -> None:
    """Upload a text to a container.

    Raises:
        TransferError: As `send_output_files`.
    """
    with tempfile.NamedTemporaryFile("w", prefix="localbatch-") as file:
        file.write(text)
        file.flush()
        _upload(storage, Path(file.name), _blob_url(container_url, name), {}, by_identity=by_identity)


def _upload(storage: StorageClient, path: Path, url: str, headers: Mapping[str, str], *, by_identity: bool) -> None:
    fixed = {"x-ms-blob-type": "BlockBlob", "Content-Type": "application/octet-stream"}
    # The signature is valid only for the version that it names.
    version = parse_qs(urlsplit(url).query).get("sv")
    if version:
        fixed["x-ms-version"] = version[0]
    answer = storage.send(
        url, UPLOAD_FAILURES, "FileUpload", source=path, headers=fixed | dict(headers), by_identity=by_identity
    )
    answer.close()
