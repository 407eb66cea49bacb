"""Counts in C: `CompiledCounts` calls the library that is compiled from counts.c, if the package contains one."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import lru_cache
from itertools import chain
from struct import Struct

from task_script.counts import Counts, Totals
from task_script.text import BYTE_ORDER_MARK, decode, decode_blocks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

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
        self._library.counts_top(self._handle, self._handle.contents.distinct + 1)
        pairs = sorted(_parse_records(self._output()))
        yield "".join([f"{word}\t{count}\n" for word, count in pairs]).encode()
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
        output = self._handle.contents.output
        return ctypes.string_at(output.bytes, output.size) if output.size else b""


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
        (library.counts_add_records, [data, size]),
        (library.counts_part, [ctypes.c_uint]),
        (library.counts_top, [size]),
        (library.counts_clear, []),
    ):
        function.argtypes, function.errcheck = [counts, *arguments], _raise_memory_error
    return library


def _raise_memory_error(result: Any, *_: object) -> Any:
    if result:
        raise MemoryError
    return result
