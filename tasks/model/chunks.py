"""Chunks of files, as they pass from step to step."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from tasks.model.files import InputFile
from tasks.model.verdict import BatchTaskOutcome, FileError

# They are worked on one after the other, and a node that dies takes the work on all of them with it.
MAX_FILES_PER_TASK = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Pack:
    """What one Batch task works on: one file, or several small ones.

    Attributes:
        task_id: Id of the Batch task: the same in every attempt and every run that has this pack.
        is_archive: Whether the files go to the node as an archive, and their results come back as one.
    """

    task_id: str
    is_archive: bool
    files: tuple[InputFile, ...]

    @classmethod
    def of(cls, files: Sequence[InputFile]) -> Pack:
        """Make the pack of these files."""
        if len(files) == 1:
            return cls(task_id=f"f-{files[0].content_key[:32]}", is_archive=False, files=tuple(files))
        return cls(task_id=f"p-{_key(files)[:32]}", is_archive=True, files=tuple(files))

    def without(self, content_keys: Container[str]) -> Pack | None:
        """Give the same pack without the files of these content keys; None if none is left."""
        files = tuple(file for file in self.files if file.content_key not in content_keys)
        return replace(self, files=files) if files else None


def _key(files: Iterable[InputFile]) -> str:
    return hashlib.sha256("\n".join(file.content_key for file in files).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Packs that are staged, submitted and collected by one Prefect task run each.

    Attributes:
        first: The place of its first file among all that are worked on, counted from 1.
        total: How many these are.
    """

    first: int
    total: int
    packs: tuple[Pack, ...]

    @property
    def files(self) -> tuple[InputFile, ...]:
        """The files of all its packs."""
        return tuple(file for pack in self.packs for file in pack.files)

    @property
    def label(self) -> str:
        """What the chunk holds, for the names of task runs: "3 of 7" or "1-50 of 950"."""
        last = self.first + len(self.files) - 1
        return f"{self.first} of {self.total}" if last == self.first else f"{self.first}-{last} of {self.total}"

    @property
    def key(self) -> str:
        """Hash of the contents in it, and of how they are packed."""
        return _key_of_packs(self.packs)


def _key_of_packs(packs: Iterable[Pack]) -> str:
    return hashlib.sha256("\n".join(f"{pack.task_id} {_key(pack.files)}" for pack in packs).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class StagedChunk:
    """A chunk whose good files are in the input container, and then in the job.

    Attributes:
        staged: The packs that can be submitted, or are, with the files that are in the container.
        failures: Why the others cannot, by content key.
        signed_until_at: When the signed URLs of its Batch tasks end, once they are submitted.
    """

    chunk: Chunk
    staged: tuple[Pack, ...]
    failures: Mapping[str, FileError]
    signed_until_at: datetime | None = None

    @property
    def label(self) -> str:
        """What the chunk holds, for the names of task runs."""
        return self.chunk.label

    @property
    def key(self) -> str:
        """Hash of the chunk and of what is staged of it; two chunks of which nothing is staged differ in the first."""
        return hashlib.sha256(f"{self.chunk.key} {_key_of_packs(self.staged)}".encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class FinishedChunk:
    """A chunk on which the service has nothing more to say.

    Attributes:
        outcomes: What it said of each submitted Batch task, by task id.
        reason: Why waiting ended before all were completed, or None.
    """

    submitted: StagedChunk
    outcomes: Mapping[str, BatchTaskOutcome]
    reason: FileError | None = None

    @property
    def key(self) -> str:
        """Hash of the contents in the chunk: the same in every attempt, as its place among the others is not."""
        return self.submitted.chunk.key

    @property
    def label(self) -> str:
        """What the chunk holds, for the names of task runs."""
        return self.submitted.label
