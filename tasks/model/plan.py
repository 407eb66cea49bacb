"""What a run will do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tasks.model.chunks import Chunk
from tasks.model.files import InputFile
from tasks.model.verdict import StoredResult


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run will do.

    Attributes:
        files: Every input, in input order.
        unchanged: Results that are known already, by content key.
        chunks: What there is to do.
    """

    files: tuple[InputFile, ...]
    unchanged: Mapping[str, StoredResult]
    chunks: tuple[Chunk, ...]

    @property
    def batch_task_count(self) -> int:
        """How many Batch tasks the run needs."""
        return sum(len(chunk.packs) for chunk in self.chunks)

    @property
    def new_file_count(self) -> int:
        """How many files, of different contents, there is work on."""
        return sum(len(chunk.files) for chunk in self.chunks)

    def waves(self, size: int) -> Iterator[tuple[Chunk, ...]]:
        """Give the chunks a few at a time: what is staged of some is submitted before the last is staged."""
        for first in range(0, len(self.chunks), size):
            yield self.chunks[first : first + size]
