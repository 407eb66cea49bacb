"""Count words in memory.

A word is a token of the text without the ASCII punctuation at both ends. A token of punctuation only is not a word.
"""

from __future__ import annotations

import heapq
import marshal
import sys
from collections import Counter
from itertools import islice, repeat

from task_script.text import split_blocks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# `string.punctuation`. Importing `string` takes longer than counting a small file.
PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"

# Number of parts that counts are written in. A vocabulary may be this many times larger than the memory limit.
# Small parts also fit in a processor's cache.
PARTS = 256


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

    def new_empty(self) -> Counts:
        """Return empty counts of the same class."""
        return Counts()

    def add_blocks(self, blocks: Iterable[bytes], *, ignore_case: bool) -> Iterator[None]:
        """Count the words of a file, and yield after each block; a block may end anywhere in a word or character.

        Raises:
            NotTextError: The text contains a NUL byte or is not UTF-8.
        """
        for tokens in split_blocks(blocks, ignore_case=ignore_case):
            # All work per token happens in C, which is a third faster than a Python loop.
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

    def pop_parts(self) -> Iterator[bytes]:
        """Yield the counts in `PARTS` parts, then delete them. The hash of a word selects its part."""
        del self._counts[""]
        # Most words occur once. They are stored without a count, and are added without a Python loop.
        single: list[list[str]] = [[] for _ in range(PARTS)]
        words: list[list[str]] = [[] for _ in range(PARTS)]
        counts: list[list[int]] = [[] for _ in range(PARTS)]
        for word, count in self._counts.items():
            part = hash(word) % PARTS
            if count == 1:
                single[part].append(word)
            else:
                words[part].append(word)
                counts[part].append(count)
        for part in range(PARTS):
            # Words contain no white space, so a space can separate them.
            yield marshal.dumps((" ".join(single[part]).encode(), " ".join(words[part]).encode(), counts[part]))
        self._counts.clear()
        self._measured = self._words_bytes = 0

    def add_part(self, part: bytes) -> None:
        """Add the counts of a part that `pop_parts` of the same process yielded."""
        single, words, counts = marshal.loads(part)  # noqa: S302 - This process wrote it.
        self._counts.update(dict(zip(words.decode().split(), counts)))  # noqa: B905 - `strict` needs Python 3.10.
        self._counts.update(single.decode().split())

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
