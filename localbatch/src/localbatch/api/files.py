"""The files of nodes and Batch tasks.

https://learn.microsoft.com/rest/api/batchservice/nodes/get-node-file
"""

from __future__ import annotations

import mimetypes
import re
import shutil
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import quote

from starlette.responses import Response, StreamingResponse

from localbatch import errors
from localbatch.account.specs import Json
from localbatch.api import odata
from localbatch.api.paging import listing
from localbatch.api.requests import Call
from localbatch.api.responses import done
from localbatch.wire import http_date, timestamp

# Larger files are streamed in blocks of this size.
BLOCK_BYTES = 1 << 18


def find_file(root: Path, path: str) -> Path:
    """Return the file below a root, or raise FileNotFound. Links must not lead outside the root."""
    # The path is decoded already, and may contain `..` or lead through a link.
    found = root / path.lstrip("/")
    if not found.exists() or not found.resolve().is_relative_to(root.resolve()):
        raise errors.file_not_found()
    return found


def list_files(root: Path, url: str, *, recursive: bool) -> dict[str, Json]:
    """Return the files below a root. The keys put them in breadth-first order."""
    listing: dict[str, Json] = {}
    level = [root]
    # The limit ends cycles that the check for links misses, such as bind mounts.
    for depth in range(1000):
        entries = sorted(entry for folder in level for entry in folder.iterdir()) if root.is_dir() else []
        for entry in entries:
            name = entry.relative_to(root).as_posix()
            listing[f"{depth:03}/{name}"] = _file_json(entry, name, url)
        level = [entry for entry in entries if entry.is_dir() and not entry.is_symlink()]
        if not recursive or not level:
            break
    return listing


def _file_json(path: Path, name: str, url: str) -> Json:
    body: Json = {"name": name, "url": f"{url}/{name}", "isDirectory": path.is_dir()}
    if not body["isDirectory"]:
        # lstat, so that a dangling link is listed instead of failing the request.
        status = path.lstat()
        body["properties"] = {
            "lastModified": timestamp(datetime.fromtimestamp(status.st_mtime, timezone.utc)),
            "contentLength": str(status.st_size),
            "contentType": _content_type(path),
            "fileMode": f"0o{status.st_mode:o}",
        }
    return body


def _content_type(path: Path) -> str:
    return mimetypes.guess_type(path.name)[0] or "application/octet-stream"


def file_response(path: Path, url: str, headers: Mapping[str, str], *, with_body: bool) -> Response:
    """Return a response with a file or the requested range of it. The status is 200 in both cases."""
    status = path.stat()
    # The official clients read the properties of files from these headers.
    fields = {
        "ocp-batch-file-isdirectory": str(path.is_dir()),
        "ocp-batch-file-mode": f"0o{status.st_mode:o}",
        "ocp-batch-file-url": quote(url, safe=""),
        "Last-Modified": http_date(datetime.fromtimestamp(status.st_mtime, timezone.utc)),
    }
    if path.is_dir():
        if with_body:
            raise errors.file_not_found()
        return Response(headers=fields)
    # ocp-range is the documented header; some clients send the standard one.
    start, end = read_range(headers.get("ocp-range") or headers.get("range"), status.st_size)
    # The header comes without a charset. Starlette would add one to a media type.
    fields |= {"Content-Length": str(end - start), "Content-Type": _content_type(path)}
    if not with_body:
        return Response(headers=fields)
    if end - start <= BLOCK_BYTES:
        return Response(b"".join(_blocks(path, start, end)), headers=fields)
    return StreamingResponse(_blocks(path, start, end), headers=fields)


def read_range(text: str | None, size: int) -> tuple[int, int]:
    """Return the start and the exclusive end of a range header, or raise InvalidRange."""
    if not text:
        return 0, size
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", text)
    if not match:
        raise errors.invalid_header_value(HeaderName="ocp-range", HeaderValue=text)
    # HTTP ranges include their end, slices exclude it.
    start, end = int(match[1]), int(match[2]) + 1 if match[2] else size
    if start >= max(size, 1) or end <= start:
        raise errors.invalid_range()
    return start, min(end, size)


def _blocks(path: Path, start: int, end: int) -> Iterator[bytes]:
    """Yield the bytes of a range in blocks. The file may grow or shrink meanwhile."""
    with path.open("rb") as file:
        file.seek(start)
        while start < end and (block := file.read(min(BLOCK_BYTES, end - start))):
            start += len(block)
            yield block


def answer_with_file(call: Call, root: Path, url: str) -> Response:
    """Return the response to a GET or HEAD of a file, after a check of the conditional headers."""
    path = find_file(root, call.parameters["file_path"])
    call.check_file(path)
    url = f"{url}/{path.relative_to(root).as_posix()}"
    return file_response(path, url, call.headers, with_body=call.method == "GET")


def delete_file(call: Call, root: Path) -> Response:
    """Delete a file, or a directory if the request is recursive."""
    path = find_file(root, call.parameters["file_path"])
    # A link to a directory is removed itself, not what it leads to.
    if not path.is_dir() or path.is_symlink():
        path.unlink()
    elif call.option("recursive"):
        shutil.rmtree(path)
    else:
        raise errors.invalid_query_parameter_value(
            QueryParameterName="recursive", QueryParameterValue="false", Reason="The path is a directory"
        )
    return done(200)


def list_files_below(call: Call, root: Path, url: str) -> Response:
    """Return a response with a page of the files below a root."""
    return listing(call, "files", list_files(root, url, recursive=call.option("recursive")), odata.FILES, lambda f: f)
