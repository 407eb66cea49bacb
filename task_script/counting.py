"""Count the words of a file of UTF-8 text, in bounded memory.

A word is a run of characters between Unicode white space (`str.split`), with ASCII punctuation stripped from both
ends; a token that is empty after stripping is not a word.
"""

# Most files are small, and for them starting is nearly all of the time: what only large files need is imported late.

from __future__ import annotations

import codecs
import hashlib
import heapq
import os
import sys
from collections import Counter
from itertools import chain, islice, repeat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

    from task_script.large_files import PartialCounts
    from task_script.options import Options

# `string.punctuation`; importing `string` takes longer than counting a small file.
PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"

# Below, loading what is compiled takes longer than it saves.
COMPILED_FROM_BYTES = 256 * 1024

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class NotTextError(ValueError):
    """The input is not UTF-8 text; the message says what is wrong with it, and at which byte."""


class CountingError(Exception):
    """Counting failed, and not for what the file holds; the message says why."""


class Totals:
    """What is asked about counts: how many words and distinct words there are, and the top ones with their counts."""

    def __init__(self, words: int, distinct: int, top: list[tuple[str, int]]) -> None:
        self.words = words
        self.distinct = distinct
        self.top = top


class Fingerprint:
    """The size and the SHA-256 of the blocks that have passed."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self.sha256 = hashlib.sha256()

    def passing(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """Pass blocks on."""
        for block in blocks:
            self.size_bytes += len(block)
            self.sha256.update(block)
            yield block


def count_words(stream: BinaryIO, options: Options) -> tuple[Totals, Fingerprint]:
    """Count the words of a file, from its start on, or of a pipe; the stream must be unbuffered.

    Raises:
        NotTextError: The file has a NUL byte, or bytes that are not UTF-8.
        CountingError: A process was killed, the disk is full, or the file was cut short meanwhile.
    """
    size_bytes = os.fstat(stream.fileno()).st_size  # 0 of what cannot be read in several places at once.
    counts = _counts_for(size_bytes)
    processes = options.processes
    if processes is None:
        gaining = size_bytes // counts.bytes_per_process
        processes = min(gaining, _idle_processors()) if gaining > 1 else 1
    fingerprint = Fingerprint()
    if processes > 1 and size_bytes > 0:
        from task_script.large_files import count_in_processes  # noqa: PLC0415

        return count_in_processes(stream.fileno(), size_bytes, processes, options, fingerprint, counts), fingerprint
    blocks = iter(lambda: stream.read(options.block_size), b"")
    vocabulary = Vocabulary(counts, options.memory_mb)
    try:
        vocabulary.take(fingerprint.passing(blocks), ignore_case=options.ignore_case)
        return vocabulary.totals(options.num_words), fingerprint
    finally:
        vocabulary.close()


class Counts:
    """Words with their counts, in memory. The compiled ones give the same.

    Attributes:
        bytes_per_process: Half a second of counting: less does not gain from a process of its own.
    """

    bytes_per_process = 8 * 2**20

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._sized = 0  # Words whose size is in the next figure.
        self._words_bytes = 0

    def another(self) -> Counts:
        """Return counts of the same kind, without words."""
        return Counts()

    def take(self, blocks: Iterable[bytes], *, ignore_case: bool, offset: int = 0) -> Iterator[None]:
        """Count the words of blocks that may be cut anywhere, and stop after each; `offset` is where the first one is.

        Raises:
            NotTextError: There is a NUL byte, or there are bytes that are not UTF-8.
        """
        for tokens in tokens_of(blocks, ignore_case=ignore_case, offset=offset):
            # No byte code runs per token here, only C: a third faster than a loop.
            self._counts.update(map(str.strip, tokens, repeat(PUNCTUATION)))
            # A dictionary keeps its order, so the new words are the last ones.
            new = islice(reversed(self._counts), len(self._counts) - self._sized)
            self._words_bytes += sum(map(str.__sizeof__, new))
            self._sized = len(self._counts)
            yield

    def exceed(self, memory_bytes: float) -> bool:
        """Whether the counts take more memory, or would while their table grows: then there is another of twice its size."""
        return self._words_bytes + 3 * sys.getsizeof(self._counts) > memory_bytes

    def take_out(self) -> Iterator[bytes]:
        """Give the counts in parts, and forget them."""
        from task_script.large_files import parts_of  # noqa: PLC0415

        yield from parts_of(self._counts)
        self._counts.clear()
        self._sized = self._words_bytes = 0

    def add_part(self, part: bytes) -> None:
        """Add the counts of a part."""
        from task_script.large_files import add_part  # noqa: PLC0415

        add_part(self._counts, part)

    def totals(self, num_words: int) -> Totals:
        """Sum up; nothing can be added afterwards."""
        return totals_of(self._counts, num_words)


class Vocabulary:
    """Counts that are put aside in a temporary file when they reach a bound on memory.

    Args:
        counts: Those, without words.
        memory_mb: What they may take, at their largest. What one block of text takes is not in it.
        aside: Where they are put; made when it is needed, unless given.
    """

    def __init__(self, counts: Counts, memory_mb: float, aside: PartialCounts | None = None) -> None:
        self._counts = counts
        self._memory_bytes = memory_mb * 2**20
        self._aside = aside

    def take(self, blocks: Iterable[bytes], *, ignore_case: bool, offset: int = 0) -> None:
        """Count the words of blocks that may be cut anywhere; `offset` is where in the file the first one is.

        Raises:
            NotTextError: There is a NUL byte, or there are bytes that are not UTF-8.
        """
        for _ in self._counts.take(blocks, ignore_case=ignore_case, offset=offset):
            if self._counts.exceed(self._memory_bytes):
                self.put_aside()

    def put_aside(self) -> PartialCounts:
        """Put all counts aside; return where all are that ever were."""
        if self._aside is None:
            from task_script.large_files import PartialCounts  # noqa: PLC0415

            self._aside = PartialCounts()
        self._aside.put(self._counts.take_out())
        return self._aside

    def totals(self, num_words: int) -> Totals:
        """Sum up; nothing can be added afterwards."""
        if self._aside is None:
            return self._counts.totals(num_words)
        from task_script.large_files import PARTS, sum_up  # noqa: PLC0415

        return sum_up([self.put_aside()], range(PARTS), num_words, self._counts)

    def close(self) -> None:
        """Delete the temporary file, if there is one."""
        if self._aside is not None:
            self._aside.close()


def totals_of(counts: Counter[str], num_words: int) -> Totals:
    """Sum up counts; the empty token, which is no word, is deleted."""
    del counts[""]
    return Totals(sum(counts.values()), len(counts), top_words(counts, num_words))


def top_words(counts: Counter[str], n: int) -> list[tuple[str, int]]:
    """Return the `n` most frequent words with their counts; equal counts are ordered by code points."""
    wanted = min(n, len(counts))
    if wanted == 0:
        return []
    least = heapq.nlargest(wanted, counts.values())[-1]
    above: list[str] = []
    tied: list[str] = []
    # Once: going through words that a processor's caches do not hold is what takes time here.
    for word, count in counts.items():
        if count >= least:
            (above if count > least else tied).append(word)
    above.sort(key=lambda word: (-counts[word], word))
    return [(word, counts[word]) for word in above + heapq.nsmallest(wanted - len(above), tied)]


def tokens_of(blocks: Iterable[bytes], *, ignore_case: bool, offset: int = 0) -> Iterator[list[str]]:
    """Split blocks, which may be cut anywhere, at white space; `offset` is where in the file the first one is.

    Raises:
        NotTextError: There is a NUL byte, or there are bytes that are not UTF-8.
    """
    # A token may span any number of blocks; joined once, at its end, it takes linear time.
    begun: list[str] = []
    for text in chain(decoded(blocks, offset), [" "]):
        # Folding is by character, and makes or removes neither white space nor ASCII punctuation: it can go first.
        tokens = (text.casefold() if ignore_case else text).split()
        if begun and text[:1].isspace():
            tokens.insert(0, "".join(begun))
            begun.clear()
        elif begun and (len(tokens) > 1 or text[-1:].isspace()):
            tokens[0] = "".join([*begun, tokens[0]])
            begun.clear()
        if tokens and not text[-1].isspace():
            begun.append(tokens.pop())
        yield tokens


def decoded(blocks: Iterable[bytes], offset: int) -> Iterator[str]:
    """Decode blocks that may be cut anywhere, without the byte order mark at the start of the file."""
    rest = b""  # The part of a character before the end of a block.
    for block in chain(blocks, [b""]):
        data = rest + block
        text, used = decode(data, offset, final=not block)
        rest = data[used:]
        yield text[1:] if offset == 0 and data.startswith(BYTE_ORDER_MARK) else text
        offset += used


def decode(data: bytes, offset: int, *, final: bool) -> tuple[str, int]:
    """Decode `data`, found at `offset`, up to its last whole character; also return how many bytes that is."""
    nul = data.find(0)
    try:
        # Only what stands before a NUL byte: a bad byte there comes first and is the one to name.
        text, used = codecs.utf_8_decode(data if nul < 0 else data[:nul], "strict", final or nul >= 0)
    except UnicodeDecodeError as error:
        bad = error.start
        raise NotTextError(f"is not UTF-8 text (byte 0x{data[bad]:02x} at offset {offset + bad})") from None
    if nul >= 0:
        raise NotTextError(f"has a NUL byte at offset {offset + nul}")
    return text, used


def _counts_for(size_bytes: int) -> Counts:
    if size_bytes >= COMPILED_FROM_BYTES:
        try:
            from task_script.compiled import compiled_counts  # noqa: PLC0415
        except ImportError:  # An interpreter without `ctypes`.
            return Counts()
        return compiled_counts() or Counts()
    return Counts()


def _idle_processors() -> int:
    """Return how many processors are free for this process: those it may use, less what else is running now.

    Several Batch tasks may share a node, and nothing tells one of them how many. What runs at this moment does: the
    load average would still hold the Batch task that just ended, and not yet the one that just began.
    """
    try:
        with open("/proc/loadavg", "rb") as stream:
            running = int(stream.read().split()[3].partition(b"/")[0])  # With this process. Source: proc(5).
        return len(os.sched_getaffinity(0)) - (running - 1)
    except (OSError, AttributeError):
        return 1  # Not Linux.
