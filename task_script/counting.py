"""Count the words of a file of text within a memory limit.

Most files are small, and most of their time is start-up time. So this module imports what only large files need
when a file needs it.
"""

from __future__ import annotations

import hashlib
import os

from task_script.counts import Counts
from task_script.options import DEFAULT_MAX_EXPANDED_MB
from task_script.vocabulary import Vocabulary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

    from task_script.counts import Totals
    from task_script.large_files import RunFile
    from task_script.merging import MergeRuns, Write

# Below this size, loading the compiled library takes longer than it saves.
MIN_COMPILED_BYTES = 256 * 1024

# How many times larger text is than its compressed file.
TYPICAL_COMPRESSION = 4

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
    encoding: str = "utf-8",
    compression: str = "",
    max_expanded_mb: float = DEFAULT_MAX_EXPANDED_MB,
    block_bytes: int = DEFAULT_BLOCK_BYTES,
    write: Write | None = None,
) -> tuple[Totals, Fingerprint]:
    """Count the words of a file or pipe.

    Args:
        stream: An unbuffered stream at the start of the file.
        num_words: Number of most frequent words to return.
        ignore_case: Whether words that are equal after `str.casefold` are one word.
        memory_mb: Memory limit of the counts. Larger counts go to a temporary file.
        encoding: Text encoding of the file.
        compression: Suffix of the compression of the file, such as .gz; empty if it is not compressed.
        max_expanded_mb: Limit of the size of the decompressed file.
        block_bytes: Number of bytes to read at a time.
        write: Called with blocks of lines of all counts as a sorted run (see `merging`), unless it is None.

    Raises:
        NotTextError: The file contains a NUL character, is not in its encoding, or cannot be decompressed.
        SpillError: The counts exceed the memory limit, and the temporary file cannot be written.
    """
    fingerprint = Fingerprint()
    blocks = fingerprint.update(iter(lambda: stream.read(block_bytes), b""))
    size_bytes = os.fstat(stream.fileno()).st_size
    if compression:
        from task_script.compressed import expand, limit_words  # noqa: PLC0415 - See the module docstring.

        blocks = expand(blocks, stream, compression, max_mb=max_expanded_mb, block_bytes=block_bytes)
        size_bytes *= TYPICAL_COMPRESSION
    if encoding != "utf-8":
        from task_script.transcoding import transcode  # noqa: PLC0415 - See the module docstring.

        blocks = transcode(blocks, encoding)
    if compression:
        blocks = limit_words(blocks)
    counts = _create_counts(size_bytes)
    vocabulary = Vocabulary(counts, memory_mb, lambda: create_run_file(size_bytes))
    try:
        vocabulary.add_blocks(blocks, ignore_case=ignore_case)
        return vocabulary.totals(num_words, write), fingerprint
    finally:
        vocabulary.close()


def create_run_file(size_bytes: int) -> RunFile:
    """Return a temporary file for sorted runs. Large ones are merged in C if the library can be loaded.

    Raises:
        SpillError: The file cannot be created.
    """
    from task_script.large_files import RunFile  # noqa: PLC0415 - See the module docstring.

    return RunFile(_find_merge(size_bytes))


def _create_counts(size_bytes: int) -> Counts:
    """Return empty counts for a file: compiled ones if the file is large and the library can be loaded."""
    if size_bytes < MIN_COMPILED_BYTES:
        return Counts()
    try:
        from task_script.native.compiled import create_compiled_counts  # noqa: PLC0415 - See the module docstring.
    except ImportError:  # This interpreter has no `ctypes`.
        return Counts()
    return create_compiled_counts() or Counts()


def _find_merge(size_bytes: int) -> MergeRuns:
    from task_script.merging import merge_runs  # noqa: PLC0415 - See the module docstring.

    if size_bytes < MIN_COMPILED_BYTES:
        return merge_runs
    try:
        from task_script.native.compiled import find_compiled_merge  # noqa: PLC0415 - See the module docstring.
    except ImportError:  # This interpreter has no `ctypes`.
        return merge_runs
    return find_compiled_merge() or merge_runs
