"""The manifest of an output folder: which files are outputs of which inputs, and of which run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import PurePosixPath
from typing import Any

MANIFEST = "manifest.json"
PAGE = "report.html"
CORPUS = "corpus."

# The format of the document. A manifest of a later format is not ours to change.
VERSION = 1

# What separates the run and the documents from the inputs.
INPUTS = b',\n  "inputs": ['


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One input file, and its outputs.

    Attributes:
        name: Name of the input.
        workload: Name of the workload that processed it. Each workload has outputs of its own.
        path: Where the input was: a path, or the URL of a blob.
        etag: ETag of the blob; "" for a file.
        sha256: SHA-256 hash of its content, in hexadecimal.
        bytes: Size of its content.
        status: "done", "unchanged" or "failed"; "running" while its outputs are written.
        error: Why it failed.
        outputs: Paths of its outputs relative to the folder.
        run: Id of the flow run that wrote them.
        cells: The texts and numbers of its row in the results, in the stored manifest of a run only.
    """

    name: str
    workload: str
    path: str
    etag: str
    sha256: str
    bytes: int
    status: str
    error: str | None
    outputs: tuple[str, ...]
    run: str
    cells: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The inputs and outputs of a folder, and the last run that wrote to it.

    Attributes:
        run: The last run: its id, workload, parameters, times and cost.
        status: "running" while outputs are written, then "completed" or "failed".
        documents: Paths of the other files of that run and of earlier ones, such as the table. They are relative to the
            folder, and can lead out of it. A file that has no such path is named by its URL.
        entries: The inputs.
    """

    run: Mapping[str, Any] = field(default_factory=dict)
    status: str = ""
    documents: tuple[str, ...] = ()
    entries: tuple[Entry, ...] = ()

    @property
    def paths(self) -> set[str]:
        """All paths that topn may replace, relative to the folder."""
        return {MANIFEST, *self.documents, *(output for entry in self.entries for output in entry.outputs)}

    def blocks(self) -> Iterator[bytes]:
        """Yield the manifest as JSON, with one line per input."""
        head = {"version": VERSION, "status": self.status, "run": self.run, "documents": self.documents}
        yield (json.dumps(head, indent=2, ensure_ascii=False).removesuffix("\n}").encode() + INPUTS)
        separator = b"\n    "
        for entry in self.entries:
            item = asdict(entry)
            if not entry.cells:
                del item["cells"]
            yield separator + json.dumps(item, ensure_ascii=False).encode()
            separator = b",\n    "
        yield b"\n  ]\n}\n"


def parse_manifest(content: bytes) -> Manifest:
    """Parse a manifest.

    Raises:
        ValueError: The content is not a manifest of topn.
    """
    try:
        document = json.loads(content)
        if document["version"] != VERSION:
            raise ValueError(f"format {document['version']} is unknown")
        return Manifest(
            run=dict(document["run"]),
            status=str(document["status"]),
            documents=tuple(str(path) for path in document["documents"]),
            entries=tuple(_entry(item) for item in document["inputs"]),
        )
    except (AttributeError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"it has no valid {error}") from error


def parse_start(start: bytes) -> Manifest | None:
    """Parse the start of a manifest, without its inputs; return None if it does not reach them.

    Raises:
        ValueError: The content is not a manifest of topn.
    """
    head, separator, _ = start.partition(INPUTS)
    return parse_manifest(head + separator + b"]}") if separator else None


def _entry(item: Mapping[str, Any]) -> Entry:
    values = {"cells": {}, **item}
    values = {name: values[name] for name in (each.name for each in fields(Entry))}
    return Entry(**{**values, "outputs": tuple(_inside(path) for path in item["outputs"])})


def _inside(path: Any) -> str:
    """Return a path; raise an error if it can lead out of the folder."""
    parts = PurePosixPath(path).parts
    if not parts or parts[0] == "/" or ".." in parts:
        raise ValueError(f"{path!r} is not a path in the folder")
    return str(path)
