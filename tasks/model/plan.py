"""The plan of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tasks.model.chunks import Chunk
from tasks.model.files import InputFile
from tasks.model.verdict import StoredResult


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The input files of a run, with the results that exist already and the chunks that remain to be processed.

    Attributes:
        files: All input files, in the order of the inputs.
        unchanged: Results of earlier runs, by content key.
        chunks: Files without a result, in chunks.
    """

    files: tuple[InputFile, ...]
    unchanged: Mapping[str, StoredResult]
    chunks: tuple[Chunk, ...]

    @property
    def batch_task_count(self) -> int:
        """Number of Batch tasks that the run needs."""
        return sum(len(chunk.packs) for chunk in self.chunks)

    @property
    def new_file_count(self) -> int:
        """Number of files to process. Files with the same content count once."""
        return sum(len(chunk.files) for chunk in self.chunks)

    def waves(self, size: int) -> Iterator[tuple[Chunk, ...]]:
        """Yield the chunks in groups of `size`, so that the first are submitted before the last are staged."""
        for first in range(0, len(self.chunks), size):
            yield self.chunks[first : first + size]
