"""Input files."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.model.outputs import Partial
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


# The folder in which a merge finds each partial, in a folder of its own, and that of the archives with partials.
PARTIALS, ARCHIVES = "partials", "archives"


@dataclass(frozen=True, kw_only=True, slots=True)
class MergeInput(InputFile):
    """The input of a merge: a script for /bin/sh that puts each partial into a folder of its own.

    Attributes:
        partials: The partials. One that several files share is there as many times.
        partial_name: Name of the file with a partial.
    """

    partials: tuple[Partial, ...] = ()
    partial_name: str = ""

    @property
    def blobs(self) -> dict[str, str]:
        """The blobs that the merge reads: the name of each, and its path in the working directory of the Batch task."""
        blobs: dict[str, str] = {}
        for number, partial in enumerate(self.partials):
            path = f"{ARCHIVES}/{number}.tar" if partial.member else f"{PARTIALS}/{number}/{self.partial_name}"
            blobs.setdefault(partial.blob, path)
        return blobs

    @property
    def script(self) -> bytes:
        """The script. All its names are numbers, and names that a workload has checked."""
        blobs = self.blobs
        members: dict[str, dict[str, None]] = {}
        links = []
        seen: set[Partial] = set()
        for number, partial in enumerate(self.partials):
            path = f"{PARTIALS}/{partial.member}/{self.partial_name}" if partial.member else blobs[partial.blob]
            if partial in seen:
                links.append(f"mkdir -p {PARTIALS}/{number} && ln -f {path} {PARTIALS}/{number}/{self.partial_name}")
            elif partial.member:
                members.setdefault(partial.blob, {})[f"{partial.member}/{self.partial_name}"] = None
            seen.add(partial)
        extractions = [f"tar -xf {blobs[blob]} -C {PARTIALS} {' '.join(names)}" for blob, names in members.items()]
        return "".join(f"{line} || exit 1\n" for line in (f"mkdir -p {PARTIALS}", *extractions, *links)).encode()
