"""Counts and merges in C: call the library that is compiled from counts.c, if the package contains one."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import lru_cache
from itertools import chain
from struct import Struct

from task_script.counts import Counts, Totals
from task_script.merging import CountError, Top, parse_lines
from task_script.text import BYTE_ORDER_MARK, decode, decode_blocks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    from task_script.merging import MergeRuns, Run, Write

# The header of a record in counts.c: count and size of the word.
_HEADER = Struct("<QI")

# Slots hold the offsets of records as 32-bit numbers. Half of that range is left for the text that is being added,
# because one token may be as long as the text.
_MAX_COUNTS_BYTES = 2**31

# Longest UTF-8 encoding of a character.
_MAX_CHARACTER_BYTES = 4


class _Buffer(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_void_p), ("size", ctypes.c_uint64), ("capacity", ctypes.c_uint64)]


class _Counts(ctypes.Structure):
    """The first fields of `Counts` in counts.c."""

    _fields_ = [
        ("words", ctypes.c_uint64),
        ("distinct", ctypes.c_uint64),
        ("size_bytes", ctypes.c_uint64),
        ("output", _Buffer),
    ]


class _Merge(ctypes.Structure):
    """The first fields of `Merge` in counts.c."""

    _fields_ = [
        ("words", ctypes.c_uint64),
        ("distinct", ctypes.c_uint64),
        ("run", ctypes.c_uint64),
        ("minimum", ctypes.c_uint64),
        ("lines", _Buffer),
        ("top", _Buffer),
    ]


# Results of `merge_next` in counts.c.
_DONE, _NEEDS_LINES, _FULL, _INVALID, _TOO_LARGE = range(5)


def create_compiled_counts() -> CompiledCounts | None:
    """Return empty counts, or None if the package contains no library that this machine can load."""
    library = _load_library()
    # The seed is random, because whoever knows it can write a text of words with equal hashes.
    return None if library is None else CompiledCounts(library, int.from_bytes(os.urandom(8), "little"))


class CompiledCounts(Counts):
    """Words with their counts, in memory of the library."""

    def __init__(self, library: Any, seed: int) -> None:
        self._library = library
        self._seed = seed
        self._handle: Any = library.counts_new(seed)
        if not self._handle:
            raise MemoryError

    def __del__(self) -> None:
        self._library.counts_free(self._handle)

    def add_blocks(self, blocks: Iterable[bytes], *, ignore_case: bool) -> Iterator[None]:
        """Count the words of a file, and yield after each block; a block may end anywhere in a word or character.

        Raises:
            NotTextError: The text contains a NUL byte or is not UTF-8.
        """
        texts = (
            (text.casefold().encode() for text in decode_blocks(blocks)) if ignore_case else self._check_blocks(blocks)
        )
        for text in chain(texts, [b" "]):
            self._library.counts_add_text(self._handle, text, len(text))
            yield

    def exceed(self, limit_bytes: float) -> bool:
        """Return whether the counts use more memory than the limit, or would during the next growth of the table."""
        return bool(self._handle.contents.size_bytes > min(limit_bytes, _MAX_COUNTS_BYTES))

    def pop_lines(self) -> Iterator[bytes]:
        """Yield the counts as a run (see `merging`), in blocks of lines, then delete them."""
        while not self._library.counts_lines(self._handle) and (lines := self._output()):
            yield lines
        self._library.counts_clear(self._handle)

    def totals(self, num_words: int) -> Totals:
        """Return the totals with the `num_words` most frequent words."""
        counts = self._handle.contents
        self._library.counts_top(self._handle, min(num_words, counts.distinct + 1))
        return Totals(counts.words, counts.distinct, list(_parse_records(self._output())))

    def _check_blocks(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the bytes of complete characters, without the byte order mark at the start of the file."""
        offset = 0
        rest = b""
        for block in chain(blocks, [b""]):
            data = rest + block
            used = self._library.counts_valid_bytes(data, len(data))
            if not block or len(data) - used >= _MAX_CHARACTER_BYTES:
                # Python's decoder raises the error with the offset. It accepts an empty rest.
                decode(data[used:], offset + used, final=True)
            rest = data[used:]
            has_mark = offset == 0 and data.startswith(BYTE_ORDER_MARK)
            yield data[len(BYTE_ORDER_MARK) if has_mark else 0 : used]
            offset += used

    def _output(self) -> bytes:
        return _content(self._handle.contents.output)


def find_compiled_merge() -> MergeRuns | None:
    """Return the compiled `merge_runs`, or None if the package contains no library that this machine can load."""
    return None if _load_library() is None else _merge_runs


def _merge_runs(runs: Sequence[Run], num_words: int, write: Write | None) -> Totals:
    """Merge runs in C, like `merging.merge_runs`."""
    library = _load_library()
    merge = library.merge_new(len(runs), write is not None)
    if not merge:
        raise MemoryError
    top = Top(num_words)
    blocks = [b""] * len(runs)  # The library reads them in place.
    try:
        while True:
            merge.contents.minimum = top.minimum
            status = library.merge_next(merge)
            run = merge.contents.run
            if status == _NEEDS_LINES:
                blocks[run] = runs[run].read()
                library.merge_feed(merge, blocks[run], len(blocks[run]))
            elif status == _INVALID:
                raise runs[run].line_error()
            elif status == _TOO_LARGE:
                raise CountError
            else:
                if write is not None:
                    write(_content(merge.contents.lines))
                top.add(zip(*parse_lines(_content(merge.contents.top))))  # noqa: B905 - `strict` needs Python 3.10.
                if status == _DONE:
                    return Totals(merge.contents.words, merge.contents.distinct, top.words())
    finally:
        library.merge_free(merge)


def _content(buffer: Any) -> bytes:
    return ctypes.string_at(buffer.bytes, buffer.size) if buffer.size else b""


def _parse_records(records: bytes) -> Iterator[tuple[str, int]]:
    offset = 0
    while offset < len(records):
        count, size = _HEADER.unpack_from(records, offset)
        offset += _HEADER.size + size
        yield records[offset - size : offset].decode(), count


@lru_cache(maxsize=None)  # noqa: UP033 - `cache` needs Python 3.9.
def _load_library() -> Any:
    try:
        name = f"counts-{os.uname().machine}.so"
        # The package may be a zip file, from which no system can load a library. So it is loaded from memory.
        loader: Any = sys.modules[__name__].__loader__
        content = loader.get_data(os.path.join(os.path.dirname(__file__), name))
        with open(os.memfd_create("counts"), "wb", buffering=0) as file:
            file.write(content)
            library = ctypes.CDLL(f"/proc/self/fd/{file.fileno()}")
    except (OSError, AttributeError):  # No library for this machine, no permission to execute it, or not Linux.
        return None
    counts, data, size = ctypes.POINTER(_Counts), ctypes.c_char_p, ctypes.c_size_t
    library.counts_new.argtypes, library.counts_new.restype = [ctypes.c_uint64], counts
    library.counts_free.argtypes, library.counts_free.restype = [counts], None
    library.counts_valid_bytes.argtypes, library.counts_valid_bytes.restype = [data, size], size
    for function, arguments in (
        (library.counts_add_text, [data, size]),
        (library.counts_lines, []),
        (library.counts_top, [size]),
        (library.counts_clear, []),
    ):
        function.argtypes, function.errcheck = [counts, *arguments], _raise_memory_error
    merge = ctypes.POINTER(_Merge)
    library.merge_new.argtypes, library.merge_new.restype = [size, ctypes.c_int], merge
    library.merge_free.argtypes, library.merge_free.restype = [merge], None
    library.merge_feed.argtypes, library.merge_feed.restype = [merge, data, size], None
    library.merge_next.argtypes, library.merge_next.errcheck = [merge], _raise_memory_error
    return library


def _raise_memory_error(result: Any, *_: object) -> Any:
    if result < 0:
        raise MemoryError
    return result
