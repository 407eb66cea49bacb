"""Count the words of a stream of UTF-8 text, in memory bounded by its vocabulary.

A word is a run of characters between Unicode white space (`str.split`), with ASCII punctuation stripped from both
ends; a token that is empty after stripping is not a word.
"""

from __future__ import annotations

import codecs
import hashlib
import heapq
import re
import string
from collections import Counter
from functools import partial
from itertools import chain, repeat
from typing import BinaryIO, Iterable, Iterator, NamedTuple  # noqa: UP035 - Those of collections.abc do not do on 3.8.

# With larger blocks the tokens of one no longer fit in a processor's second-level cache, and counting is slower.
BLOCK_SIZE = 64 * 1024

_BYTE_ORDER_MARK = "\ufeff"

# Greedy, so that it ends behind the last white space; `\s` is exactly the white space of `str.split`.
_THROUGH_LAST_SPACE = re.compile(r".*\s", re.DOTALL)


class NotTextError(ValueError):
    """The input is not UTF-8 text; the message says what is wrong with it, and at which byte."""


class Tally(NamedTuple):
    """What one pass over a file finds out."""

    counts: Counter[str]
    size_bytes: int
    sha256: str


def count_words(stream: BinaryIO, *, ignore_case: bool = False, block_size: int = BLOCK_SIZE) -> Tally:
    """Count the words of a stream, reading it once.

    Args:
        stream: Read until its end; not closed.
        ignore_case: Count words that are equal after `str.casefold` as one.
        block_size: Bytes to read at a time; the result does not depend on it.

    Raises:
        NotTextError: The stream has a NUL byte, or bytes that are not UTF-8.
    """
    counts: Counter[str] = Counter()
    fingerprint = _Fingerprint()
    blocks = fingerprint.passing(iter(partial(stream.read, block_size), b""))
    for text in _whole_tokens(_decoded(blocks)):
        # Folding neither makes nor removes white space or ASCII punctuation, so it can go before splitting.
        tokens = (text.casefold() if ignore_case else text).split()
        # No byte code runs per token here, only C: a third faster than a loop.
        counts.update(map(str.strip, tokens, repeat(string.punctuation)))
    del counts[""]
    return Tally(counts, fingerprint.size_bytes, fingerprint.hexdigest())


def top_words(counts: Counter[str], n: int) -> list[tuple[str, int]]:
    """Return the `n` most frequent words with their counts; equal counts are ordered by code points."""
    wanted = min(n, len(counts))
    if wanted == 0:
        return []
    # A sort by (-count, word) would make a tuple for every word of the vocabulary.
    least = heapq.nlargest(wanted, counts.values())[-1]
    above = sorted((-count, word) for word, count in counts.items() if count > least)
    tied = heapq.nsmallest(wanted - len(above), (word for word, count in counts.items() if count == least))
    return [(word, -negated) for negated, word in above] + [(word, least) for word in tied]


class _Fingerprint:
    """The size and the SHA-256 of the blocks that have passed through."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self._sha256 = hashlib.sha256()

    def passing(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        for block in blocks:
            self.size_bytes += len(block)
            self._sha256.update(block)
            yield block

    def hexdigest(self) -> str:
        return self._sha256.hexdigest()


def _decoded(blocks: Iterable[bytes]) -> Iterator[str]:
    """Decode blocks that may be cut anywhere, without the byte order mark at the start."""
    offset = 0  # Of the first byte that is not decoded yet.
    rest = b""  # The part of a character before the end of a block.
    for block in chain(blocks, [b""]):
        data = rest + block
        text, used = _decode(data, offset, final=not block)
        rest = data[used:]
        yield text[1:] if offset == 0 and text.startswith(_BYTE_ORDER_MARK) else text
        offset += used


def _decode(data: bytes, offset: int, *, final: bool) -> tuple[str, int]:
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


def _whole_tokens(texts: Iterable[str]) -> Iterator[str]:
    """Cut a text anew, so that no piece ends inside a token."""
    # A token may span any number of texts; joined once, at its end, it takes linear time.
    begun: list[str] = []
    for text in texts:
        spaced = _THROUGH_LAST_SPACE.match(text)
        if spaced is None:
            begun.append(text)
        else:
            yield "".join(begun) + spaced.group()
            begun = [text[spaced.end() :]]
    yield "".join(begun)
