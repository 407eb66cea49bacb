r"""Read and write partials: all counts of a file or of several files, sorted by word.

A partial is a gzip file, whose CRC-32 and size are the checksum. Its first line is `HEADER`. Each of the other lines is
`WORD\tCOUNT\n` for one of the distinct words, in the order of the bytes of their UTF-8 encoding. Equal counts make
partials of equal bytes with the same zlib, because it always gets blocks of the same size.
"""

from __future__ import annotations

import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from task_script.merging import Run

# The format and its version. No word contains a space.
HEADER = b"topn words 1\n"

# Higher levels take several times as long, and make partials little smaller.
LEVEL = 1

# Number of bytes that are compressed at a time.
WRITE_BYTES = 64 * 1024

# Number of compressed bytes that are read at a time.
READ_BYTES = 8 * 1024


class PartialWriter:
    """Compresses the lines of a partial.

    Args:
        write: Called with the content of the file, in blocks.
    """

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._zlib = zlib.compressobj(LEVEL, wbits=31)
        self._lines = bytearray(HEADER)

    def write(self, lines: bytes) -> None:
        """Append lines."""
        self._lines += lines
        while len(self._lines) >= WRITE_BYTES:
            self._write(self._zlib.compress(self._lines[:WRITE_BYTES]))
            del self._lines[:WRITE_BYTES]

    def close(self) -> None:
        """Write the end of the file."""
        self._write(self._zlib.compress(self._lines) + self._zlib.flush())


def open_partial(file: str) -> Run:
    """Return the lines of a partial as a run. The file is opened when its first block is read."""
    from task_script.merging import Run  # noqa: PLC0415 - Writing does not need it.

    return Run(file, _read(file))


def _read(file: str) -> Iterator[bytes]:
    from task_script.compressed import ExpandError, expand  # noqa: PLC0415 - Writing does not need it.
    from task_script.merging import BLOCK_BYTES, RunError  # noqa: PLC0415

    header = b""
    try:
        with open(file, "rb", buffering=0) as stream:
            compressed = iter(lambda: stream.read(READ_BYTES), b"")
            for block in expand(compressed, stream, ".gz", max_mb=float("inf"), block_bytes=BLOCK_BYTES):
                if len(header) == len(HEADER):
                    yield block
                    continue
                rest = len(HEADER) - len(header)
                header += block[:rest]
                if not HEADER.startswith(header):
                    break
                yield block[rest:]
    except ExpandError as error:
        raise RunError(file, str(error)) from None
    except OSError as error:
        raise RunError(file, f"cannot be read: {error.strerror}") from error
    if header != HEADER:
        raise RunError(file, "is not a partial of this version")
