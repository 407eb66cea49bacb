"""Decompress a file in a stream. Only compressed files need this module.

A decompressor returns at most one block at a time, and refuses files that need much memory, so that no file can fill the
memory.
"""

from __future__ import annotations

from functools import partial
from importlib import import_module

from task_script.text import NotTextError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, BinaryIO

# No preset of `xz` needs more, and `zstd` has the same limit by default.
MAX_MEMORY_BYTES = 128 * 2**20

# A longer word is not text. Words are kept in memory until they end, and a small file can expand to a single one.
MAX_WORD_MB = 16

INSTALL = "install {} on the node, for example with `start_commands` of the pool setup"


class ExpandError(NotTextError):
    """The input cannot be decompressed. The message contains the reason."""


class _GzipDecompressor:
    """The decompressor of zlib, with the interface of the other decompressors."""

    def __init__(self, zlib: Any) -> None:
        self._zlib = zlib.decompressobj(wbits=31)

    def decompress(self, data: bytes, max_length: int) -> Any:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)

    def __getattr__(self, name: str) -> Any:
        return not self._zlib.unconsumed_tail if name == "needs_input" else getattr(self._zlib, name)


def expand(
    blocks: Iterable[bytes], stream: BinaryIO, suffix: str, *, max_mb: float, block_bytes: int
) -> Iterator[bytes]:
    """Yield the decompressed content of a file in blocks, none of them empty.

    Args:
        blocks: The content of the file.
        stream: The file itself, for a program that decompresses it.
        suffix: The format: .gz, .bz2, .xz or .zst.
        max_mb: Limit of the decompressed size.
        block_bytes: Maximum size of a block.

    Raises:
        ExpandError: The file is damaged or too large, or the node cannot decompress this format.
    """
    try:
        create, error_class = _decompressor(suffix)
        expanded = _decompress(blocks, create, error_class, block_bytes)
    except ImportError as error:
        if suffix != ".zst":
            needed = INSTALL.format("a Python with it")
            raise ExpandError(f"needs the Python module `{error.name}`: {needed}") from None
        expanded = _run_zstd(blocks, stream, block_bytes)
    size_bytes = 0
    for block in expanded:
        size_bytes += len(block)
        if size_bytes > max_mb * 2**20:
            raise ExpandError(f"expands to more than {max_mb:,} MB; set a higher --max-expanded-mb")
        if block:
            yield block


def limit_words(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the blocks of UTF-8 text.

    Raises:
        ExpandError: A word does not end within the limit.
    """
    word_bytes = 0
    for block in blocks:
        word_bytes += len(block)
        # Decoding is slower, and hardly any text needs it.
        if b" " in block or b"\n" in block or len(block.decode("utf-8", "ignore").split(None, 1)) != 1:
            word_bytes = 0
        elif word_bytes > MAX_WORD_MB * 2**20:
            raise ExpandError(f"has a word of more than {MAX_WORD_MB} MB")
        yield block


def _decompressor(suffix: str) -> tuple[Callable[[], Any], type[Exception]]:
    """Return a function that creates a decompressor, and the class of its errors."""
    if suffix == ".gz":
        zlib = import_module("zlib")
        return partial(_GzipDecompressor, zlib), zlib.error
    if suffix == ".bz2":
        return import_module("bz2").BZ2Decompressor, OSError
    if suffix == ".xz":
        lzma = import_module("lzma")
        return partial(lzma.LZMADecompressor, lzma.FORMAT_XZ, MAX_MEMORY_BYTES), lzma.LZMAError
    zstd = import_module("compression.zstd")
    return zstd.ZstdDecompressor, zstd.ZstdError


def _decompress(
    blocks: Iterable[bytes], create: Callable[[], Any], error_class: type[Exception], block_bytes: int
) -> Iterator[bytes]:
    """Decompress all members of a file."""
    decompressor = create()
    for block in blocks:
        data = block
        while data or not decompressor.needs_input:
            if decompressor.eof:
                # Zeros may pad a file at its end, for example to the block size of a tape.
                data = data.lstrip(b"\0")
                if not data:
                    break
                decompressor = create()
            try:
                expanded = decompressor.decompress(data, block_bytes)
            except error_class as error:
                raise ExpandError(f"cannot be expanded: {error}") from None
            yield expanded
            data = decompressor.unused_data if decompressor.eof else b""
    if not decompressor.eof:
        raise ExpandError("cannot be expanded: it is cut off")


def _run_zstd(blocks: Iterable[bytes], stream: BinaryIO, block_bytes: int) -> Iterator[bytes]:
    """Decompress a file with the program zstd, because Python has no module for it before 3.14."""
    from subprocess import PIPE, Popen  # noqa: PLC0415 - slow to import

    for _ in blocks:
        pass  # The program reads the file itself, but its hash is needed as well.
    stream.seek(0)
    try:
        process = Popen(["zstd", "-dcq"], stdin=stream, stdout=PIPE, stderr=PIPE)  # noqa: S607 - from the node's PATH
    except (FileNotFoundError, PermissionError):
        raise ExpandError(f"needs the program zstd or Python 3.14: {INSTALL.format('zstd')}") from None
    with process:
        try:
            yield from iter(lambda: process.stdout.read(block_bytes), b"")  # type: ignore[union-attr]
            errors = process.stderr.read().decode("utf-8", "replace")  # type: ignore[union-attr]
            if process.wait():
                raise ExpandError(f"cannot be expanded: {_reason(errors)}")
        finally:
            process.kill()


def _reason(errors: str) -> str:
    """Return the first error of zstd without its name for standard input."""
    return errors.partition("\n")[0].rpartition("\\")[2].strip(" :") or "zstd failed"
