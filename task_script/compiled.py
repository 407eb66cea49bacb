"""The counts of `counting`, compiled: what counts.c does, where an object made of it for this processor is beside it."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import lru_cache
from itertools import chain
from struct import Struct

from task_script.counting import BYTE_ORDER_MARK, Counts, Totals, decode, decoded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

# As in counts.c. A part is the words whose hashes have the same first byte.
_PARTS = 256
_HEAD = Struct("<QI")

# Records are found by numbers of 32 bits, and a text may add as much as its longest token takes.
_MOST_BYTES = 2**31

_LONGEST_CHARACTER = 4


class _Buffer(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_void_p), ("size", ctypes.c_uint64), ("room", ctypes.c_uint64)]


class _Counts(ctypes.Structure):
    _fields_ = [
        ("words", ctypes.c_uint64),
        ("distinct", ctypes.c_uint64),
        ("size_bytes", ctypes.c_uint64),
        ("output", _Buffer),
    ]


def compiled_counts() -> CompiledCounts | None:
    """Return counts without words; None where nothing is compiled for this machine, or it cannot be loaded."""
    library = _library()
    # Whoever knows the seed can make a text of words whose hashes are equal.
    return None if library is None else CompiledCounts(library, int.from_bytes(os.urandom(8), "little"))


class CompiledCounts(Counts):
    """The same counts, in memory that Python does not see."""

    bytes_per_process = 32 * 2**20

    def __init__(self, library: Any, seed: int) -> None:
        self._library = library
        self._seed = seed
        self._handle: Any = library.counts_new(seed)
        if not self._handle:
            raise MemoryError

    def __del__(self) -> None:
        self._library.counts_free(self._handle)

    def another(self) -> CompiledCounts:
        """Return counts of the same kind, without words."""
        # With another seed: here, the hashes of the words of a part must not begin with the same byte.
        return CompiledCounts(self._library, self._seed + 1)

    def take(self, blocks: Iterable[bytes], *, ignore_case: bool, offset: int = 0) -> Iterator[None]:
        """Count the words of blocks that may be cut anywhere, and stop after each."""
        texts = (
            (text.casefold().encode() for text in decoded(blocks, offset))
            if ignore_case
            else self._checked(blocks, offset)
        )
        for text in chain(texts, [b" "]):
            self._library.counts_add_text(self._handle, text, len(text))
            yield

    def exceed(self, memory_bytes: float) -> bool:
        """Whether the counts take more memory."""
        return bool(self._handle.contents.size_bytes > min(memory_bytes, _MOST_BYTES))

    def take_out(self) -> Iterator[bytes]:
        """Give the counts in parts, and forget them."""
        for part in range(_PARTS):
            self._library.counts_part(self._handle, part)
            yield self._output()
        self._library.counts_clear(self._handle)

    def add_part(self, part: bytes) -> None:
        """Add the counts of a part."""
        self._library.counts_add_records(self._handle, part, len(part))

    def totals(self, num_words: int) -> Totals:
        """Sum up."""
        found = self._handle.contents
        self._library.counts_top(self._handle, min(num_words, found.distinct + 1))
        return Totals(found.words, found.distinct, list(_words_of(self._output())))

    def _checked(self, blocks: Iterable[bytes], offset: int) -> Iterator[bytes]:
        """Cut blocks between characters, and leave the byte order mark at the start of the file out."""
        rest = b""
        for block in chain(blocks, [b""]):
            data = rest + block
            used = self._library.counts_valid(data, len(data))
            if not block or len(data) - used >= _LONGEST_CHARACTER:
                decode(data[used:], offset + used, final=True)  # Raises; it says best what is wrong there.
            rest = data[used:]
            begins = offset == 0 and data.startswith(BYTE_ORDER_MARK)
            yield data[len(BYTE_ORDER_MARK) if begins else 0 : used]
            offset += used

    def _output(self) -> bytes:
        output = self._handle.contents.output
        return ctypes.string_at(output.bytes, output.size) if output.size else b""


def _words_of(records: bytes) -> Iterator[tuple[str, int]]:
    offset = 0
    while offset < len(records):
        count, size = _HEAD.unpack_from(records, offset)
        offset += _HEAD.size + size
        yield records[offset - size : offset].decode(), count


@lru_cache(maxsize=None)  # noqa: UP033 - `cache` came with 3.9.
def _library() -> Any:
    try:
        name = f"counts-{os.uname().machine}.so"
        # The object may be in a zip file, from which no system loads it.
        loader: Any = sys.modules[__name__].__loader__
        image = loader.get_data(os.path.join(os.path.dirname(__file__), name))
        with open(os.memfd_create("counts"), "wb", buffering=0) as file:
            file.write(image)
            library = ctypes.CDLL(f"/proc/self/fd/{file.fileno()}")
    except (OSError, AttributeError):  # There is none, it may not be executed, or this is not Linux.
        return None
    counts, data, size = ctypes.POINTER(_Counts), ctypes.c_char_p, ctypes.c_size_t
    library.counts_new.argtypes, library.counts_new.restype = [ctypes.c_uint64], counts
    library.counts_free.argtypes, library.counts_free.restype = [counts], None
    library.counts_valid.argtypes, library.counts_valid.restype = [data, size], size
    for function, arguments in (
        (library.counts_add_text, [data, size]),
        (library.counts_add_records, [data, size]),
        (library.counts_part, [ctypes.c_uint]),
        (library.counts_top, [size]),
        (library.counts_clear, []),
    ):
        function.argtypes, function.errcheck = [counts, *arguments], _require_memory
    return library


def _require_memory(result: Any, *_: object) -> Any:
    if result:
        raise MemoryError
    return result
