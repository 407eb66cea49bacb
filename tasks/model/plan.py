"""The plan of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tasks.model.chunks import Chunk
from tasks.model.files import InputFile
from tasks.model.verdict import FileError, StoredResult


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The input files of a run, with the results that exist already and the chunks that remain to be processed.

    Attributes:
        files: All input files, in the order of the inputs.
        unchanged: Results of earlier runs, by content key.
        chunks: Files without a result, in chunks.
        failures: Errors of the files that nodes cannot read, by content key.
    """

    files: tuple[InputFile, ...]
    unchanged: Mapping[str, StoredResult]
    chunks: tuple[Chunk, ...]
    failures: Mapping[str, FileError] = field(default_factory=dict)

    @property
    def batch_task_count(self) -> int:
        """Number of Batch tasks that the run needs."""
        return sum(len(chunk.packs) for chunk in self.chunks)

    @property
    def new_file_count(self) -> int:
        """Number of files to process. Files with the same content count once."""
        return sum(len(chunk.files) for chunk in self.chunks)
