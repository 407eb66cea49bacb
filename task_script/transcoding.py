"""Convert text of other encodings to UTF-8. Only files with `--encoding` need this module."""

from __future__ import annotations

import codecs
from contextlib import suppress
from itertools import chain

from task_script.text import NotTextError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# Text encodings that need a whole file at once, or that decode nothing.
NOT_FOR_FILES = {"idna", "punycode", "undefined"}

# Without a mark, text is little-endian, as on Windows and on all nodes.
BIG_ENDIAN_MARKS = {"utf-16": codecs.BOM_UTF16_BE, "utf-32": codecs.BOM_UTF32_BE}

# UTF-7 is decoded only up to the start of an unfinished sequence, which may be as long as the file.
MAX_SEQUENCE_BYTES = 2**20


def find_encoding(name: str) -> str | None:
    """Return Python's own name for a text encoding, or None if it is not one that can decode files."""
    try:
        with suppress(UnicodeError):  # One byte is not a character of each encoding.
            b" ".decode(name)
        name = codecs.lookup(name).name
    except (LookupError, ValueError):
        return None
    # The byte order mark is dropped in any case.
    return None if name in NOT_FOR_FILES else "utf-8" if name == "utf-8-sig" else name


def transcode(blocks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """Yield the text of a file in UTF-8; a block may end anywhere in a character.

    Args:
        blocks: The content of the file.
        encoding: Name of the encoding, as `find_encoding` returns it.

    Raises:
        NotTextError: The file cannot be decoded, or its text contains a NUL character or a lone surrogate.
    """
    start = b""
    while len(start) < len(codecs.BOM_UTF32_BE) and (block := next(blocks, b"")):
        start += block
    name = encoding
    if name in BIG_ENDIAN_MARKS:
        name += "-be" if start.startswith(BIG_ENDIAN_MARKS[name]) else "-le"
    decoder = codecs.getincrementaldecoder(name)()
    size_bytes = characters = 0
    for block in chain([start], blocks, [b""]):
        size_bytes += len(block)
        try:
            text = decoder.decode(block, not block)
        except UnicodeDecodeError as error:
            bad = error.object[error.start]
            offset = size_bytes - len(error.object) + error.start
            raise NotTextError(f"is not {encoding} text (byte 0x{bad:02x} at offset {offset})") from None
        if len(decoder.getstate()[0]) > MAX_SEQUENCE_BYTES:
            offset = size_bytes - len(decoder.getstate()[0])
            raise NotTextError(f"is not {encoding} text (a sequence of more than 1 MB at offset {offset})")
        if "\0" in text:
            raise NotTextError(f"has a NUL character at offset {characters + text.index(chr(0))} of its text")
        try:
            converted = text.encode()
        except UnicodeEncodeError as error:
            raise NotTextError(f"has half a character at offset {characters + error.start} of its text") from None
        characters += len(text)
        if converted:
            yield converted
