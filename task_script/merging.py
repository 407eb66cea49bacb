r"""Merge sorted runs of counted words in a stream.

A run consists of lines `WORD\tCOUNT\n` in UTF-8, in the order of the bytes of the words, which is that of their code
points. Each word occurs once in it. Words contain no white space.
"""

from __future__ import annotations

from bisect import bisect_right
from operator import lt

from task_script.counts import Totals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    Write = Callable[[bytes], None]

    # Merges at most `MAX_RUNS` runs. Passes the lines of the merged run on, and returns its totals and top words.
    MergeRuns = Callable[[Sequence["Run"], int, "Write | None"], Totals]

# A count is a signed 64-bit number for all programs that read it.
MAX_COUNT = 2**63 - 1

# More runs are merged in several passes, so that neither their buffers nor their open files are too many.
MAX_RUNS = 128

# In Python, the words of a block take ten times the memory of the block.
BLOCK_BYTES = 16 * 1024


class RunError(Exception):
    """A run is not valid. The message contains the reason.

    Attributes:
        name: Name of the run.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(reason)
        self.name = name


class CountError(Exception):
    """A sum of counts is too large. The message contains the limit."""

    def __init__(self) -> None:
        super().__init__(f"a count is more than {MAX_COUNT}")


class Run:
    """A run that is read in blocks.

    Args:
        name: Name for error messages.
        blocks: The content of the run; a block may end anywhere in a line.
    """

    def __init__(self, name: str, blocks: Iterable[bytes]) -> None:
        self.name = name
        self._blocks = iter(blocks)
        self._rest: list[bytes] = []  # The start of a line, in any number of pieces.

    def read(self) -> bytes:
        """Return the next complete lines, or nothing at the end.

        Raises:
            RunError: The run is not UTF-8 text, or its last line has no end.
        """
        for block in self._blocks:
            lines, newline, rest = block.rpartition(b"\n")
            if not newline:
                self._rest.append(block)
                continue
            complete = b"".join([*self._rest, lines, newline])
            self._rest = [rest] if rest else []
            try:
                complete.decode()
            except UnicodeDecodeError:
                raise self.error("is not UTF-8 text") from None
            return complete
        if any(self._rest):
            raise self.error("is cut off")
        return b""

    def error(self, reason: str) -> RunError:
        """Return an error that names this run."""
        return RunError(self.name, reason)

    def line_error(self) -> RunError:
        """Return the error for a line that is not valid or not in order."""
        return self.error("is not a sorted list of words and counts")


class Top:
    """The most frequent words of a merge, whose words arrive in order.

    Attributes:
        minimum: Words with a lower count are not among the most frequent ones, so they need not be added.
    """

    def __init__(self, num_words: int) -> None:
        self._num_words = num_words
        self._pairs: list[tuple[bytes, int]] = []
        self.minimum = 1 if num_words else MAX_COUNT + 1

    def add(self, pairs: Iterable[tuple[bytes, int]]) -> None:
        """Add words with their counts."""
        self._pairs += pairs
        if len(self._pairs) > 2 * self._num_words:
            self._sort()

    def words(self) -> list[tuple[str, int]]:
        """Return the words with their counts, most frequent first; words with equal counts are in order."""
        self._sort()
        return [(word.decode(), count) for word, count in self._pairs]

    def _sort(self) -> None:
        self._pairs.sort(key=lambda pair: (-pair[1], pair[0]))
        del self._pairs[self._num_words :]
        if 0 < self._num_words == len(self._pairs):
            # A later word with the same count comes after these words.
            self.minimum = self._pairs[-1][1] + 1


def merge_runs(runs: Sequence[Run], num_words: int, write: Write | None) -> Totals:
    """Merge runs in Python. `native.compiled` has the same function.

    Args:
        runs: At most `MAX_RUNS` runs.
        num_words: Number of most frequent words to return.
        write: Called with blocks of lines of the merged run, in order, unless it is None.

    Raises:
        RunError: A run is not valid.
        CountError: A sum of counts is too large.
    """
    top = Top(num_words)
    words = distinct = 0
    for part in _merge_blocks([_Buffer(run) for run in runs]):
        words += sum(part.values())
        distinct += len(part)
        if words > MAX_COUNT:
            raise CountError
        ordered = sorted(part)
        counts = [part[word] for word in ordered]
        if write is not None:
            write(join_lines(ordered, counts))
        minimum = top.minimum
        if max(counts) >= minimum:
            top.add([pair for pair in zip(ordered, counts) if pair[1] >= minimum])  # noqa: B905 - needs Python 3.10
    return Totals(words, distinct, top.words())


def join_lines(words: Sequence[bytes], counts: Sequence[int]) -> bytes:
    """Return the lines of words with their counts."""
    fields: list[bytes | int] = [0] * (2 * len(words))
    fields[::2] = words
    fields[1::2] = counts
    return b"%b\t%d\n" * len(words) % tuple(fields)


def parse_lines(lines: bytes) -> tuple[list[bytes], list[int]]:
    """Return the words and counts of complete lines.

    Raises:
        ValueError: A line is not valid.
    """
    fields = lines.split()
    words = fields[::2]
    counts = list(map(int, fields[1::2]))
    if len(words) != len(counts) or join_lines(words, counts) != lines:
        raise ValueError("not lines of words and counts")
    return words, counts


class _Buffer:
    """The words of a run that are in memory."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._words: list[bytes] = []
        self._counts: list[int] = []
        self._next = 0
        self._last = b""

    def fill(self) -> bool:
        """Read words if there are none, and return whether there are some now."""
        if self._next < len(self._words):
            return True
        lines = self._run.read()
        if not lines:
            return False
        try:
            self._words, self._counts = parse_lines(lines)
        except ValueError:
            raise self._run.line_error() from None
        in_order = self._last < self._words[0] and all(map(lt, self._words, self._words[1:]))
        if not in_order or min(self._counts) < 1 or max(self._counts) > MAX_COUNT:
            raise self._run.line_error()
        self._next = 0
        self._last = self._words[-1]
        return True

    def last(self) -> bytes:
        """Return the last word."""
        return self._last

    def move_to(self, counts: dict[bytes, int], last: bytes) -> None:
        """Move all words up to `last` to `counts`."""
        start, self._next = self._next, bisect_right(self._words, last, self._next)
        for place in range(start, self._next):
            word = self._words[place]
            counts[word] = counts.get(word, 0) + self._counts[place]


def _merge_blocks(buffers: list[_Buffer]) -> Iterator[dict[bytes, int]]:
    """Yield words with their counts; all words of a dictionary come before those of the next one."""
    while buffers := [buffer for buffer in buffers if buffer.fill()]:
        # Later blocks contain no word up to this one.
        last = min(buffer.last() for buffer in buffers)
        counts: dict[bytes, int] = {}
        for buffer in buffers:
            buffer.move_to(counts, last)
        yield counts
