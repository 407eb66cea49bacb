"""A storage account in the process of the flow, below the real SDK, with any number of blobs as inputs.

It creates listings and the outputs of simulated Batch tasks when they are requested, so they take no memory. Uploaded
blobs are in files, and last from one process to the next.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from bisect import bisect_left
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, overload
from urllib.parse import quote, unquote
from xml.sax.saxutils import escape

import requests
from simulation.storage import Blob, Container, InProcessSession, MemoryStorage, Response

from bench.blobs import CONTAINER, RESULTS_CONTAINER, blob_name
from bench.own_client import SIMULATED
from localbatch.processes.azurite import STORAGE_ACCOUNT, STORAGE_KEY
from tasks.workload.base import NODE_INPUT
from tasks.workload.packs import EXIT, INPUT_HASH, RESULTS

BLOB_BYTES = 500
MAX_RESULTS = 5000

MODIFIED = "Sat, 28 Nov 2026 10:00:00 GMT"

# All properties that Azure lists for a blob of the default tier.
ENTRY = (
    "<Blob><Name>{name}</Name><Properties><Creation-Time>{date}</Creation-Time><Last-Modified>{date}</Last-Modified>"
    "<Etag>{etag}</Etag><Content-Length>{size}</Content-Length><Content-Type>text/plain</Content-Type><Content-Encoding />"
    "<Content-Language /><Content-CRC64 /><Content-MD5>rL0Y20zC+Fzt72VPzMSk2A==</Content-MD5><Cache-Control />"
    "<Content-Disposition /><BlobType>BlockBlob</BlobType><AccessTier>Hot</AccessTier>"
    "<AccessTierInferred>true</AccessTierInferred><LeaseStatus>unlocked</LeaseStatus><LeaseState>available</LeaseState>"
    "<ServerEncrypted>true</ServerEncrypted></Properties><OrMetadata /></Blob>"
)


class _FileContent(Sequence[int]):
    """The content of a blob, in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __len__(self) -> int:
        return self._path.stat().st_size

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> bytes: ...
    def __getitem__(self, index: int | slice) -> int | bytes:
        return self._path.read_bytes()[index]


class SimulatedStorage(MemoryStorage):
    """An account with a container of inputs, and one for results."""

    def __init__(self, folder: Path, blob_count: int) -> None:
        """Create it with the uploaded blobs in a folder."""
        super().__init__(STORAGE_ACCOUNT, STORAGE_KEY, lambda: datetime.now(timezone.utc))
        self._folder = folder
        self._blob_count = blob_count
        self._session = InProcessSession(self.answer)
        # The folders in the archives of each pack, in 16 bytes each, by Batch task id.
        self._folders: dict[str, bytes] = {}
        for name in (CONTAINER, RESULTS_CONTAINER):
            self.containers[name] = Container({}, self._now(), self._new_etag())
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            self._add(unquote(path.name), path)

    def request(self, method: str, url: str, **options: Any) -> requests.Response:
        """Answer a request of the SDK."""
        return self._session.request(method, url, **options)

    def learn_batch_tasks(self, body: str | bytes) -> None:
        """Learn which files Batch tasks have, from the request that adds them."""
        for task in json.loads(body)["value"]:
            paths = [file["filePath"].partition("/") for file in task["resourceFiles"]]
            if folders := [folder for folder, _, name in paths if name.startswith(NODE_INPUT)]:
                self._folders[task["id"]] = bytes.fromhex("".join(folders))

    def _add(self, name: str, path: Path) -> None:
        now = self._now()
        content: Any = _FileContent(path)
        self.containers[RESULTS_CONTAINER].committed[name] = Blob(
            content, {}, "application/octet-stream", now, now, self._new_etag(), ""
        )

    def _commit(self, call: Any, content: bytes, *rest: Any, **options: Any) -> Response:
        if call.blob.endswith(".tar"):
            with tarfile.open(fileobj=io.BytesIO(content)) as members:
                names = [member.name.partition("/") for member in members]
            if folders := [folder for folder, _, name in names if name.startswith(NODE_INPUT)]:
                self._folders[call.blob.removesuffix(".tar")] = bytes.fromhex("".join(folders))
            content = b""
        response = super()._commit(call, content, *rest, **options)
        if call.container == RESULTS_CONTAINER:
            path = self._folder / quote(call.blob, safe="")
            path.write_bytes(content)
            self._add(call.blob, path)
        return response

    def _delete_blob(self, call: Any) -> Response:
        response = super()._delete_blob(call)
        if call.container == RESULTS_CONTAINER:
            (self._folder / quote(call.blob, safe="")).unlink()
        return response

    def _list_blobs(self, call: Any) -> Response:
        if call.container != CONTAINER:
            return super()._list_blobs(call)
        query = call.query
        prefix, start = query.get("prefix", ""), max(query.get("startFrom", ""), query.get("marker", ""))
        numbers = range(self._blob_count)
        first = bisect_left(numbers, max(prefix, start), key=blob_name)
        end = bisect_left(numbers, f"{prefix}\U0010ffff", key=blob_name)
        size = min(int(query.get("maxresults", MAX_RESULTS)), MAX_RESULTS)
        last = min(first + size, end)
        items = "".join(
            ENTRY.format(name=blob_name(number), date=MODIFIED, etag=f"0x{number:015X}", size=BLOB_BYTES)
            for number in numbers[first:last]
        )
        marker = escape(blob_name(last)) if last < end else ""
        body = (
            '<?xml version="1.0" encoding="utf-8"?>'
            f"<EnumerationResults><MaxResults>{size}</MaxResults><Blobs>{items}</Blobs><NextMarker>{marker}</NextMarker></EnumerationResults>"
        )
        return Response(200, {"Content-Type": "application/xml"}, body.encode())

    def _get_blob(self, call: Any) -> Response:
        task_id, _, name = call.blob.partition("/")
        texts = _texts(task_id, task_id)
        if name in texts or (name == RESULTS and task_id in self._folders):
            now = self._now()
            content = texts[name].encode() if name in texts else _archive(task_id, self._folders[task_id])
            blobs = self.containers[call.container].committed
            blobs[call.blob] = Blob(content, {}, "application/octet-stream", now, now, '"0x1"', "")
            response = super()._get_blob(call)
            del blobs[call.blob]
            return response
        return super()._get_blob(call)


def _texts(task_id: str, content: str) -> dict[str, str]:
    """Return what the Batch task of a file writes."""
    return {
        **dict.fromkeys(SIMULATED.outputs, task_id),
        INPUT_HASH: hashlib.sha256(content.encode()).hexdigest(),
        EXIT: "0 1\n",
    }


def _archive(task_id: str, folders: bytes) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for start in range(0, len(folders), 16):
            folder = folders[start : start + 16].hex()
            for name, text in _texts(task_id, folder).items():
                member = tarfile.TarInfo(f"{folder}/{name}")
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text.encode()))
    return content.getvalue()
