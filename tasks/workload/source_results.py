"""The results of blobs in a results store: many per file, so that a run reads them with few requests.

A *segment* is a file with one document per line. A segment is never changed, and no two runs write the same one, so
concurrent runs lose nothing. The segments of a folder of blobs are in a folder of their own:
`sources/WORKLOAD/CONTAINER/FOLDER/TIME-RANDOM.jsonl`.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from urllib.parse import quote

from tasks.model.files import Source
from tasks.model.outputs import Output, Scratch
from tasks.model.verdict import StoredResult
from tasks.workload.result_documents import (
    MAX_DOCUMENT_BYTES,
    DamagedError,
    Document,
    parse_document,
    read_content,
    read_result,
    to_bytes,
    write_result,
)
from tasks.workload.result_files import ResultFiles

# More results need another segment.
SEGMENT_BYTES = 4 * 1024 * 1024

# A larger file is no segment: the last document of a segment may exceed its size.
MAX_SEGMENT_BYTES = SEGMENT_BYTES + MAX_DOCUMENT_BYTES

# Smaller segments are merged if a folder has more than this number of them.
SMALL_BYTES = 1024 * 1024
MAX_SMALL_SEGMENTS = 16

# File systems limit a file name to 255 bytes.
MAX_FOLDER_CHARACTERS = 200

SEGMENT_NAME = re.compile(r"\d{8}T\d{12}Z-[0-9a-f]{16}\.jsonl")


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


def add_results(files: ResultFiles, source: Source, results: Mapping[str, SourceResult]) -> dict[str, StoredResult]:
    """Write a segment with results by content key, several if they are large, and return them as they are stored."""
    # Versions of a blob are ordered by this time. A wrong clock can cost time, but no correct result.
    added_at = datetime.now(timezone.utc).isoformat(timespec="microseconds")
    stored: dict[str, StoredResult] = {}

    def lines() -> Iterator[bytes]:
        for key, item in results.items():
            document, stored[key] = write_result(files, key, item.result)
            yield to_bytes({**document, "blob": item.blob, "added_at": added_at})

    _write_segments(files, _root(source) + _quoted(source.folder), lines())
    return stored


def _write_segments(files: ResultFiles, folder: str, lines: Iterable[bytes]) -> None:
    for content in _batches(lines):
        name = f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S%f}Z-{secrets.token_hex(8)}.jsonl"
        files.write(f"{folder}/{name}", [content])


def _batches(lines: Iterable[bytes]) -> Iterator[bytes]:
    parts: list[bytes] = []
    size_bytes = 0
    for line in lines:
        parts += (line, b"\n")
        size_bytes += len(line) + 1
        if size_bytes >= SEGMENT_BYTES:
            yield b"".join(parts)
            parts, size_bytes = [], 0
    if parts:
        yield b"".join(parts)


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment in a listing.

    Attributes:
        folder: The folder of the store that contains it.
        name: Its file name. It starts with the time when it was written.
    """

    folder: str
    name: str
    size_bytes: int

    @property
    def path(self) -> str:
        """Its name in the store."""
        return f"{self.folder}/{self.name}"


class Search:
    """A search for results, which reads each segment at most once, one at a time.

    Attributes:
        found: The results so far, by content key.
        is_interrupted: Whether another run has deleted a segment since the last listing, because it merged it.
    """

    def __init__(self, files: ResultFiles, source: Source, content_keys: Collection[str], scratch: Scratch) -> None:
        self.found: dict[str, StoredResult] = {}
        self.is_interrupted = False
        self._files = files
        self._source = source
        self._missing = set(content_keys)
        self._scratch = scratch
        self._listed: set[str] = set()
        self._crowded: set[str] = set()
        self._may_merge = True
        self._merged: dict[Segment, Output] = {}
        self._merged_lines = Scratch()
        # The time of the newest document, by hashes of folders and blob names, which take less memory.
        self._newest: dict[int, str] = {}

    def list_segments(self) -> list[Segment]:
        """Return the segments that can have the results and are not read yet, the newest first."""
        self.is_interrupted = False
        root, wanted = _root(self._source), _quoted(self._source.folder)
        segments = []
        for path, size_bytes, _ in self._files.list_files(root):
            folder, _, name = path.removeprefix(root).partition("/")
            is_related = folder.startswith(wanted) or wanted.startswith(folder)
            if is_related and SEGMENT_NAME.fullmatch(name) and path not in self._listed:
                segments.append(Segment(root + folder, name, size_bytes))
                self._listed.add(path)
        small = Counter(segment.folder for segment in segments if segment.size_bytes < SMALL_BYTES)
        self._crowded = {folder for folder, count in small.items() if count > MAX_SMALL_SEGMENTS}
        return sorted(segments, key=lambda segment: segment.name, reverse=True)

    def read(self, segment: Segment) -> None:
        """Read the results of a segment, unless all results are found.

        Raises:
            DamagedError: A line or the segment is damaged. The results of the other lines are found.
        """
        if not self._missing:
            return
        if (content := read_content(self._files, segment.path, MAX_SEGMENT_BYTES)) is None:
            self.is_interrupted = True
            # This search has seen documents that are now in other segments, so it cannot tell which are superfluous.
            self._may_merge = False
            return
        lines = [line for line in content.split(b"\n") if line]
        live = []
        is_damaged = False
        for line in lines:
            try:
                document = parse_document(line)
                is_wanted = self._take(document)
                if self._is_newest(segment.folder, document) or is_wanted:
                    live.append(line)
            except DamagedError:
                is_damaged = True
        is_small = segment.size_bytes < SMALL_BYTES and segment.folder in self._crowded
        if is_damaged or is_small or len(live) * 2 < len(lines):
            self._merged[segment] = self._merged_lines.add([b"\n".join(live)])
        if is_damaged:
            raise DamagedError

    def _take(self, document: Document) -> bool:
        """Read the result of a document if it is wanted and not found yet, and return whether it is."""
        if not all(isinstance(document.get(name), str) for name in ("content_key", "blob", "added_at")):
            raise DamagedError
        if (key := document["content_key"]) not in self._missing:
            return False
        self.found[key] = read_result(self._files, document, self._scratch)
        self._missing.remove(key)
        return True

    def _is_newest(self, folder: str, document: Document) -> bool:
        """Return whether every other document that was read for this blob is older. A blob never gets an old ETag back."""
        blob, added_at = hash((folder, document["blob"])), sys.intern(document["added_at"])
        if self._newest.get(blob, "") >= added_at:
            return False
        self._newest[blob] = added_at
        return True

    def merge(self) -> None:
        """Merge the small segments of crowded folders, and those of which most is superfluous or something damaged.

        New segments are written before the merged ones are deleted, so a killed run leaves only duplicates. The next
        merge removes them.
        """
        if not self._may_merge:
            return
        for folder in {segment.folder for segment in self._merged}:
            merged = {segment: lines for segment, lines in self._merged.items() if segment.folder == folder}
            lines = (line for output in merged.values() for line in output.read().split(b"\n") if line)
            _write_segments(self._files, folder, lines)
            for segment in merged:
                self._files.delete(segment.path)


def _root(source: Source) -> str:
    container = hashlib.sha256(source.container.encode()).hexdigest()
    return f"sources/{source.workload[:16]}/{container[:16]}/"


def _quoted(folder: str) -> str:
    """Return a folder of blobs as a file name. If it is cut, it stands for several folders, and more is read."""
    # With the slash at the start, it is neither empty nor "..".
    return quote(f"/{folder}", safe="", errors="surrogateescape")[:MAX_FOLDER_CHARACTERS]
