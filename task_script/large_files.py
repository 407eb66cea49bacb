"""What only large files need: counts that do not fit in memory, and processes that count side by side."""

from __future__ import annotations

import marshal
import os
import pickle
import signal
import tempfile
from collections import Counter
from contextlib import suppress
from itertools import chain
from typing import Any, Callable, Iterable, Iterator, Sequence  # noqa: UP035 - Those of collections.abc are of 3.9.

from task_script.counting import CountingError, Counts, Fingerprint, Totals, Vocabulary
from task_script.options import Options

# So many times larger than the memory may a vocabulary be. Small parts also stay in a processor's cache.
PARTS = 256

# White space of one byte, and never a part of a longer character: a text that is cut there decodes as the whole does.
_SAFE_CUTS = (b" ", b"\n", b"\t", b"\r", b"\v", b"\f")


class PartialCounts:
    """Counts in a temporary file without a name, in parts: a word's hash says which part it is in.

    That is the same in processes that are forked from one another, and in no others.

    Raises:
        CountingError: The file cannot be made or written.
    """

    def __init__(self) -> None:
        # A node's working folder is on its large disk.
        folder = os.environ.get("AZ_BATCH_TASK_WORKING_DIR")
        try:
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - Its owner closes it.
        except OSError as error:
            raise _not_put_aside(error) from error
        # Of each part the offsets and sizes of its chunks. A process that put counts aside tells the others by these.
        self.chunks: list[list[tuple[int, int]]] = [[] for _ in range(PARTS)]

    def put(self, parts: Iterable[bytes]) -> None:
        """Write all parts of some counts down."""
        try:
            for number, part in enumerate(parts):
                self.chunks[number].append((self._file.tell(), len(part)))
                self._file.write(part)
            self._file.flush()
        except OSError as error:
            raise _not_put_aside(error) from error

    def add_to(self, counts: Counts, part: int) -> None:
        """Add one part to other counts."""
        for offset, size in self.chunks[part]:
            counts.add_part(os.pread(self._file.fileno(), size, offset))

    def close(self) -> None:
        """Delete the file."""
        with suppress(OSError):  # What a full disk did not take is tried again here.
            self._file.close()


def parts_of(counts: Counter[str]) -> Iterator[bytes]:
    """Give counts in parts; the empty token, which is no word, is deleted."""
    del counts[""]
    once: list[list[str]] = [[] for _ in range(PARTS)]  # Most words; these are added up without byte code.
    words: list[list[str]] = [[] for _ in range(PARTS)]
    numbers: list[list[int]] = [[] for _ in range(PARTS)]
    for word, number in counts.items():
        part = hash(word) % PARTS
        if number == 1:
            once[part].append(word)
        else:
            words[part].append(word)
            numbers[part].append(number)
    for part in range(PARTS):
        # No word has white space in it.
        yield marshal.dumps((" ".join(once[part]).encode(), " ".join(words[part]).encode(), numbers[part]))


def add_part(counts: Counter[str], part: bytes) -> None:
    """Add the counts of a part."""
    once, words, numbers = marshal.loads(part)  # noqa: S302 - Our own.
    counts.update(dict(zip(words.decode().split(), numbers)))  # noqa: B905 - `strict` came with 3.10.
    counts.update(once.decode().split())


def sum_up(stores: Sequence[PartialCounts], parts: Iterable[int], num_words: int, kind: Counts) -> Totals:
    """Sum up some parts of what was put aside, one after the other, in counts of the kind that they were of."""
    totals = Totals(0, 0, [])
    for part in parts:
        counts = kind.another()
        for store in stores:
            store.add_to(counts, part)
        totals = _joined([totals, counts.totals(num_words)], num_words)
    return totals


def count_in_processes(
    file: int, size_bytes: int, processes: int, options: Options, fingerprint: Fingerprint, counts: Counts
) -> Totals:
    """Count each range of a file in a process, then sum up what they put aside in as many; pass the fingerprint by.

    Each process takes `counts`, which have no words yet, for its own.

    Raises:
        NotTextError: The file has a NUL byte, or bytes that are not UTF-8.
        CountingError: A process was killed, the disk is full, or the file was cut short meanwhile.
    """
    cuts = [0, *(_safe_cut(file, size_bytes * number // processes) for number in range(1, processes)), size_bytes]
    stores = [PartialCounts() for _ in range(processes)]
    parent = os.getpid()

    def count_range(number: int) -> list[list[tuple[int, int]]]:
        vocabulary = Vocabulary(counts, options.memory_mb / processes, stores[number])
        blocks = _blocks(file, cuts[number], cuts[number + 1], options.block_size)
        vocabulary.take(_while_alive(parent, blocks), ignore_case=options.ignore_case, offset=cuts[number])
        return vocabulary.put_aside().chunks

    def take_fingerprint() -> None:
        for _ in fingerprint.passing(_blocks(file, 0, size_bytes, options.block_size)):
            pass

    def sum_parts_up(number: int) -> Totals:
        return sum_up(stores, range(number, PARTS, processes), options.num_words, counts)

    try:
        for store, chunks in zip(stores, _forked(count_range, processes, meanwhile=take_fingerprint)):  # noqa: B905
            store.chunks = chunks
        return _joined(_forked(sum_parts_up, processes), options.num_words)
    finally:
        for store in stores:
            store.close()


def _joined(totals: Sequence[Totals], num_words: int) -> Totals:
    """Join totals that have no word in common."""
    top = sorted(chain.from_iterable(each.top for each in totals), key=lambda pair: (-pair[1], pair[0]))
    return Totals(sum(each.words for each in totals), sum(each.distinct for each in totals), top[:num_words])


def _not_put_aside(error: OSError) -> CountingError:
    return CountingError(f"its counts do not fit in memory and cannot be put aside: {error.strerror}")


def _safe_cut(file: int, offset: int) -> int:
    """Return the offset of the first safe cut from `offset` on, or of the end of the file."""
    while True:
        block = os.pread(file, 64 * 1024, offset)
        found = [place for place in map(block.find, _SAFE_CUTS) if place >= 0]
        if found or not block:
            return offset + min(found, default=0)
        offset += len(block)


def _blocks(file: int, start: int, stop: int, block_size: int) -> Iterator[bytes]:
    while start < stop:
        block = os.pread(file, min(block_size, stop - start), start)
        if not block:
            raise CountingError("it was cut short while it was read")
        yield block
        start += len(block)


def _while_alive(parent: int, blocks: Iterable[bytes]) -> Iterator[bytes]:
    for block in blocks:
        if os.getppid() != parent:
            os._exit(1)  # It was killed, and nobody is left to take the result.
        yield block


def _forked(
    function: Callable[[int], Any], processes: int, *, meanwhile: Callable[[], None] = lambda: None
) -> list[Any]:
    """Call a function with each number below `processes`, in a process each, and return the results in order.

    What a call raises is raised here, the lowest number's first, and the other processes are ended.
    """
    # `multiprocessing` is slow to import, and its processes wait for ever when this one is killed.
    running: list[tuple[int, int]] = []
    try:
        for number in range(processes):
            results, result = os.pipe()
            try:
                process = os.fork()
            except OSError as error:
                raise CountingError(f"no process can be started for a part of it: {error.strerror}") from error
            if process == 0:
                _answer(function, number, result)
            os.close(result)
            running.append((process, results))
        meanwhile()
        return [_result(results) for _, results in running]
    finally:
        for process, results in running:
            os.close(results)
            os.kill(process, signal.SIGKILL)  # One that has answered has nothing left to do.
            os.waitpid(process, 0)


def _answer(function: Callable[[int], Any], number: int, result: int) -> None:
    """Send what a call returns or raises, and end this process."""
    try:
        answer: tuple[Any, BaseException | None] = (function(number), None)
    except BaseException as error:  # noqa: BLE001 - The other process raises it.
        # Without the traceback, and so without what did not fit in memory.
        answer = (None, error.with_traceback(None))
    with suppress(BaseException), open(result, "wb") as stream:
        pickle.dump(answer, stream)
    os._exit(0)


def _result(results: int) -> Any:
    try:
        with open(results, "rb", closefd=False) as stream:
            result, error = pickle.load(stream)  # noqa: S301 - Written by a process of ours.
    except (EOFError, pickle.UnpicklingError):
        raise CountingError("a process that counted a part of it was killed, maybe for lack of memory") from None
    if error is not None:
        raise error
    return result
