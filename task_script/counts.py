"""Count words in memory.

A word is a token of the text without the ASCII punctuation at both ends. A token of punctuation only is not a word.
"""

from __future__ import annotations

import heapq
import sys
from collections import Counter
from itertools import islice, repeat

from task_script.text import split_blocks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# `string.punctuation`. Importing `string` takes longer than counting a small file.
PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"

# Number of lines in a block, which has about as many bytes as a block of text.
LINES = 4096


class Totals:
    """The number of words, the number of distinct words, and the most frequent words with their counts."""

    def __init__(self, words: int, distinct: int, top: list[tuple[str, int]]) -> None:
        self.words = words
        self.distinct = distinct
        self.top = top


class Counts:
    """Words with their counts, in a dictionary. `CompiledCounts` has the same methods and results."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._measured = 0  # Number of words whose size is included in `_words_bytes`.
        self._words_bytes = 0

    def add_blocks(self, blocks: Iterable[bytes], *, ignore_case: bool) -> Iterator[None]:
        """Count the words of a file, and yield after each block; a block may end anywhere in a word or character.

        Raises:
            NotTextError: The text contains a NUL byte or is not UTF-8.
        """
        for tokens in split_blocks(blocks, ignore_case=ignore_case):
            # All work per token happens in C, which is a third faster than a Python loop.
            if tokens:
                self._counts.update(map(str.strip, tokens, repeat(PUNCTUATION)))
                # A dictionary keeps the insertion order, so the new words are the last ones.
                new = islice(reversed(self._counts), len(self._counts) - self._measured)
                self._words_bytes += sum(map(str.__sizeof__, new))
                self._measured = len(self._counts)
            yield

    def exceed(self, limit_bytes: float) -> bool:
        """Return whether the counts use more memory than the limit, or would during the next growth of the table."""
        # While a table grows, a second one of twice its size exists.
        return self._words_bytes + 3 * sys.getsizeof(self._counts) > limit_bytes

    def pop_lines(self) -> Iterator[bytes]:
        """Yield the counts as a run (see `merging`), in blocks of lines, then delete them."""
        del self._counts[""]
        words = sorted(self._counts)
        for start in range(0, len(words), LINES):
            yield "".join([f"{word}\t{self._counts[word]}\n" for word in words[start : start + LINES]]).encode()
        self._counts.clear()
        self._measured = self._words_bytes = 0

    def totals(self, num_words: int) -> Totals:
        """Return the totals with the `num_words` most frequent words."""
        del self._counts[""]
        return Totals(sum(self._counts.values()), len(self._counts), top_words(self._counts, num_words))


def top_words(counts: Counter[str], n: int) -> list[tuple[str, int]]:
    """Return the `n` most frequent words with their counts; words with equal counts are in code point order."""
    wanted = min(n, len(counts))
    if wanted == 0:
        return []
    lowest = heapq.nlargest(wanted, counts.values())[-1]
    above: list[str] = []
    tied: list[str] = []
    # One pass only: reading words that are not in a processor's cache takes most of the time here.
    for word, count in counts.items():
        if count >= lowest:
            (above if count > lowest else tied).append(word)
    above.sort(key=lambda word: (-counts[word], word))
    return [(word, counts[word]) for word in above + heapq.nsmallest(wanted - len(above), tied)]
