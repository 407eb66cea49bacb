"""Count the words of a file of UTF-8 text within a memory limit.

Most files are small, and most of their time is start-up time. So this module imports what only large files need
when a file needs it.
"""

from __future__ import annotations

import hashlib
import os

from task_script.counts import Counts
from task_script.vocabulary import Vocabulary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

    from task_script.counts import Totals
    from task_script.large_files import PartFile

# Below this size, loading the compiled library takes longer than it saves.
MIN_COMPILED_BYTES = 256 * 1024

# With larger blocks, the tokens of a block do not fit in a processor's second-level cache, and counting is slower.
DEFAULT_BLOCK_BYTES = 64 * 1024


class Fingerprint:
    """The size and the SHA-256 of a file, updated while its blocks are read."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self.sha256 = hashlib.sha256()

    def update(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the blocks, and add each to the fingerprint."""
        for block in blocks:
            self.size_bytes += len(block)
            self.sha256.update(block)
            yield block


def count_words(
    stream: BinaryIO,
    *,
    num_words: int,
    ignore_case: bool,
    memory_mb: float,
    block_bytes: int = DEFAULT_BLOCK_BYTES,
) -> tuple[Totals, Fingerprint]:
    """Count the words of a file or pipe.

    Args:
        stream: An unbuffered stream at the start of the file.
        num_words: Number of most frequent words to return.
        ignore_case: Whether words that are equal after `str.casefold` are one word.
        memory_mb: Memory limit of the counts. Larger counts go to a temporary file.
        block_bytes: Number of bytes to read at a time.

    Raises:
        NotTextError: The file contains a NUL byte or is not UTF-8.
        SpillError: The counts exceed the memory limit, and the temporary file cannot be written.
    """
    fingerprint = Fingerprint()
    blocks = iter(lambda: stream.read(block_bytes), b"")
    counts = _create_counts(os.fstat(stream.fileno()).st_size)
    vocabulary = Vocabulary(counts, memory_mb, _create_part_file)
    try:
        vocabulary.add_blocks(fingerprint.update(blocks), ignore_case=ignore_case)
        return vocabulary.totals(num_words), fingerprint
    finally:
        vocabulary.close()


def _create_counts(size_bytes: int) -> Counts:
    """Return empty counts for a file: compiled ones if the file is large and the library can be loaded."""
    if size_bytes < MIN_COMPILED_BYTES:
        return Counts()
    try:
        from task_script.native.compiled import create_compiled_counts  # noqa: PLC0415 - See the module docstring.
    except ImportError:  # This interpreter has no `ctypes`.
        return Counts()
    return create_compiled_counts() or Counts()


def _create_part_file() -> PartFile:
    from task_script.large_files import PartFile  # noqa: PLC0415 - See the module docstring.

    return PartFile()
