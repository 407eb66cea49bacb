"""Count the words of a file within a memory limit."""

from __future__ import annotations

from task_script.counts import PARTS, Totals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Protocol

    from task_script.counts import Counts

    class PartStore(Protocol):
        """Storage for counts that exceed the memory limit."""

        def write(self, parts: Iterable[bytes]) -> None:
            """Append to each part."""

        def read(self, part: int) -> Iterator[bytes]:
            """Yield everything that was appended to one part."""

        def close(self) -> None:
            """Delete all parts."""


class SpillError(Exception):
    """The counts exceed the memory limit and cannot be stored elsewhere. The message contains the reason."""


class Vocabulary:
    """The counts of a file. When they reach the memory limit, they move to a store.

    Args:
        counts: Empty counts.
        memory_mb: Memory limit of the counts. One block of text is not included.
        create_store: Called once the counts reach the limit.
    """

    def __init__(self, counts: Counts, memory_mb: float, create_store: Callable[[], PartStore]) -> None:
        self._counts = counts
        self._limit_bytes = memory_mb * 2**20
        self._create_store = create_store
        self._store: PartStore | None = None

    def add_blocks(self, blocks: Iterable[bytes], *, ignore_case: bool) -> None:
        """Count the words of a file; a block may end anywhere in a word or character.

        Raises:
            NotTextError: The text contains a NUL byte or is not UTF-8.
            SpillError: The counts exceed the memory limit and cannot be stored.
        """
        for _ in self._counts.add_blocks(blocks, ignore_case=ignore_case):
            if self._counts.exceed(self._limit_bytes):
                self._move_to_store()

    def totals(self, num_words: int) -> Totals:
        """Return the totals with the `num_words` most frequent words. No words can be added after this.

        Raises:
            SpillError: The counts exceed the memory limit and cannot be stored.
        """
        if self._store is None:
            return self._counts.totals(num_words)
        self._move_to_store()
        totals = Totals(0, 0, [])
        for number in range(PARTS):
            counts = self._counts.new_empty()
            for part in self._store.read(number):
                counts.add_part(part)
            totals = _add(totals, counts.totals(num_words), num_words)
        return totals

    def close(self) -> None:
        """Close the store, if one was created."""
        if self._store is not None:
            self._store.close()

    def _move_to_store(self) -> None:
        if self._store is None:
            self._store = self._create_store()
        self._store.write(self._counts.pop_parts())


def _add(one: Totals, other: Totals, num_words: int) -> Totals:
    """Add totals that have no word in common."""
    top = sorted(one.top + other.top, key=lambda pair: (-pair[1], pair[0]))
    return Totals(one.words + other.words, one.distinct + other.distinct, top[:num_words])
