"""Input files."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.model.urls import Place, parse_place


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A folder of a blob container, whose blobs have their results together.

    Attributes:
        workload: Hash of the workload.
        container: Name of the account and of the container, with a slash in between.
        folder: Start of the names of the blobs, up to a slash; "" for the whole container.
    """

    workload: str
    container: str
    folder: str


@dataclass(frozen=True, kw_only=True, slots=True)
class InputFile:
    """One input file, on this machine or in Blob Storage.

    Attributes:
        path: Absolute path on this machine, or URL of the blob.
        name: Path relative to the root of its input, with forward slashes.
        output: Path of its outputs relative to the output folder, without the extension (``reports/a_OUTPUT``).
        sha256: SHA-256 hash of its content, in hexadecimal. That of a blob is "" until a node has read it.
        size_bytes: Size of its content.
        content_key: Hash of everything that its result depends on. For a blob, its ETag stands for its content.
        copies: Paths of the other inputs with the same content. Each of them can be read instead.
        etag: ETag of the blob; "" for a file on this machine.
        source: Where the results of the blob are stored; None for a file on this machine.
    """

    path: str
    name: str
    output: str
    sha256: str
    size_bytes: int
    content_key: str
    copies: tuple[str, ...] = ()
    etag: str = ""
    source: Source | None = None

    @property
    def place(self) -> Place:
        """The blob."""
        return parse_place("The input", self.path)
