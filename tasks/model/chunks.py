"""Chunks of files, in each stage of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from tasks.model.files import InputFile
from tasks.model.naming import BLOBS_ARCHIVE, batch_task_id, input_blob
from tasks.model.verdict import BatchTaskOutcome, FileError

# A Batch task processes its files one after the other. If its node is lost, the work on all of them is lost.
MAX_FILES_PER_TASK = 1000

# The kind of chunks of merges.
MERGE = "merge "


@dataclass(frozen=True, kw_only=True, slots=True)
class Pack:
    """The input of one Batch task: one file, or several small ones.

    Attributes:
        task_id: Id of the Batch task. It is the same in every attempt and in every run with this pack.
        is_archive: Whether the node downloads the files, and uploads their results, as one archive.
        has_only_blobs: Whether all files were in Blob Storage when the pack was created.
    """

    task_id: str
    is_archive: bool
    files: tuple[InputFile, ...]
    has_only_blobs: bool = False

    @classmethod
    def of(cls, files: Sequence[InputFile]) -> Pack:
        """Create the pack of these files, and derive its id from their contents."""
        if len(files) == 1:
            return cls(
                task_id=batch_task_id(files[0].content_key, is_archive=False), is_archive=False, files=tuple(files)
            )
        return cls(
            task_id=batch_task_id(_key(files), is_archive=True),
            is_archive=True,
            files=tuple(files),
            has_only_blobs=all(file.etag for file in files),
        )

    @property
    def input_blob(self) -> str:
        """Name of the blob in the input container."""
        if self.is_archive and self.has_only_blobs:
            return BLOBS_ARCHIVE
        return input_blob(self.task_id, None if self.is_archive else self.files[0].sha256)

    @property
    def has_blobs(self) -> bool:
        """Whether a file is in Blob Storage."""
        return any(file.etag for file in self.files)

    def without(self, content_keys: Container[str]) -> Pack | None:
        """Return this pack, with the same id, without the files with these content keys; None if no file remains."""
        files = tuple(file for file in self.files if file.content_key not in content_keys)
        return replace(self, files=files) if files else None


def _key(files: Iterable[InputFile]) -> str:
    return hashlib.sha256("\n".join(file.content_key for file in files).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Packs that are staged, submitted and collected together: each of these steps is one Prefect task run.

    Attributes:
        first: Position of its first file among all files that the run processes, counted from 1.
        total: Number of files that the run processes.
        kind: What its files are, if they are not those of the user.
    """

    first: int
    total: int
    packs: tuple[Pack, ...]
    kind: str = ""

    @property
    def files(self) -> tuple[InputFile, ...]:
        """The files of all its packs."""
        return tuple(file for pack in self.packs for file in pack.files)

    @property
    def label(self) -> str:
        """Positions of its files, for the names of Prefect task runs: "3 of 7" or "1-50 of 950"."""
        last = self.first + len(self.files) - 1
        positions = str(self.first) if last == self.first else f"{self.first}-{last}"
        return f"{self.kind}{positions} of {self.total}"

    @property
    def key(self) -> str:
        """Hash of its contents, and of how they are packed."""
        return _key_of_packs(self.packs)


def waves(chunks: Sequence[Chunk], size: int) -> Iterator[Sequence[Chunk]]:
    """Yield the chunks in groups of `size`, so that the first are submitted before the last are staged."""
    for first in range(0, len(chunks), size):
        yield chunks[first : first + size]


def _key_of_packs(packs: Iterable[Pack]) -> str:
    return hashlib.sha256("\n".join(f"{pack.task_id} {_key(pack.files)}" for pack in packs).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class StagedChunk:
    """A chunk after its files were uploaded to the input container, and also after they were submitted.

    Attributes:
        staged: Packs that are ready to be submitted, or were submitted, with the uploaded files only.
        failures: Errors of the files that were not uploaded, by content key.
        signed_until_at: Expiry of the signed URLs of its Batch tasks; None until they are submitted.
    """

    chunk: Chunk
    staged: tuple[Pack, ...]
    failures: Mapping[str, FileError]
    signed_until_at: datetime | None = None

    @property
    def label(self) -> str:
        """Positions of its files, for the names of Prefect task runs."""
        return self.chunk.label

    @property
    def key(self) -> str:
        """Hash of the chunk and of its staged packs. The chunk distinguishes two keys if nothing was staged."""
        return hashlib.sha256(f"{self.chunk.key} {_key_of_packs(self.staged)}".encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class FinishedChunk:
    """A chunk whose Batch tasks are completed, or are no longer waited for.

    Attributes:
        outcomes: Outcome of each submitted Batch task, by task id.
        reason: Why waiting ended before all Batch tasks were completed; None if they all were.
    """

    submitted: StagedChunk
    outcomes: Mapping[str, BatchTaskOutcome]
    reason: FileError | None = None

    @property
    def key(self) -> str:
        """Hash of the chunk's contents. It is the same in every attempt, unlike the positions of its files."""
        return self.submitted.chunk.key

    @property
    def label(self) -> str:
        """Positions of its files, for the names of Prefect task runs."""
        return self.submitted.label
