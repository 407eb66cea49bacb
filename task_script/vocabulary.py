"""Count the words of a file within a memory limit."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Protocol

    from task_script.counts import Counts, Totals
    from task_script.merging import Write

    class RunStore(Protocol):
        """Storage for counts that exceed the memory limit, as sorted runs."""

        def add(self, lines: Iterable[bytes]) -> None:
            """Append a run."""

        def merge(self, num_words: int, write: Write | None) -> Totals:
            """Merge all runs."""

        def close(self) -> None:
            """Delete all runs."""


class SpillError(Exception):
    """The counts exceed the memory limit and cannot be stored elsewhere. The message contains the reason."""


class Vocabulary:
    """The counts of a file. When they reach the memory limit, they move to a store.

    Args:
        counts: Empty counts.
        memory_mb: Memory limit of the counts. One block of text is not included.
        create_store: Called once the counts reach the limit.
    """

    def __init__(self, counts: Counts, memory_mb: float, create_store: Callable[[], RunStore]) -> None:
        self._counts = counts
        self._limit_bytes = memory_mb * 2**20
        self._create_store = create_store
        self._store: RunStore | None = None

    def add_blocks(self, blocks: Iterable[bytes], *, ignore_case: bool) -> None:
        """Count the words of a file; a block may end anywhere in a word or character.

        Raises:
            NotTextError: The text contains a NUL byte or is not UTF-8.
            SpillError: The counts exceed the memory limit and cannot be stored.
        """
        for _ in self._counts.add_blocks(blocks, ignore_case=ignore_case):
            if self._counts.exceed(self._limit_bytes):
                if self._store is None:
                    self._store = self._create_store()
                self._store.add(self._counts.pop_lines())

    def totals(self, num_words: int, write: Write | None) -> Totals:
        """Return the totals with the `num_words` most frequent words. No words can be added after this.

        Args:
            num_words: Number of most frequent words to return.
            write: Called with blocks of lines of all counts as a sorted run (see `merging`), unless it is None.

        Raises:
            SpillError: The counts exceed the memory limit and cannot be stored.
        """
        if self._store is not None:
            self._store.add(self._counts.pop_lines())
            return self._store.merge(num_words, write)
        totals = self._counts.totals(num_words)
        if write is not None:
            for lines in self._counts.pop_lines():
                write(lines)
        return totals

    def close(self) -> None:
        """Close the store, if one was created."""
        if self._store is not None:
            self._store.close()
