"""Decode and split UTF-8 text that arrives in blocks.

A token is a run of characters between Unicode white space, as in `str.split`.
"""

from __future__ import annotations

import codecs
from itertools import chain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

BYTE_ORDER_MARK = b"\xef\xbb\xbf"

# Parts of ordinary names and words that `str.isprintable` rejects: spaces of several scripts, and the joiners in Persian
# and Indic words and in emoji.
PRINTABLE = "\u00a0\u200c\u200d\u202f\u3000"


class NotTextError(ValueError):
    """The input is not text in its encoding. The message contains the reason, and the offset if there is one."""


def split_blocks(blocks: Iterable[bytes], *, ignore_case: bool) -> Iterator[list[str]]:
    """Yield the tokens that end in each block; a block may end anywhere in a token or character.

    Raises:
        NotTextError: The text contains a NUL byte or is not UTF-8.
    """
    # A token may span any number of blocks. Joining its pieces once, at its end, takes linear time.
    pieces: list[str] = []
    for text in chain(decode_blocks(blocks), [" "]):
        # Case folding works per character and never adds or removes white space or ASCII punctuation,
        # so it can happen before the split.
        tokens = (text.casefold() if ignore_case else text).split()
        if pieces and text[:1].isspace():
            tokens.insert(0, "".join(pieces))
            pieces.clear()
        elif pieces and (len(tokens) > 1 or text[-1:].isspace()):
            tokens[0] = "".join([*pieces, tokens[0]])
            pieces.clear()
        if tokens and not text[-1].isspace():
            pieces.append(tokens.pop())
        yield tokens


def decode_blocks(blocks: Iterable[bytes]) -> Iterator[str]:
    """Yield the text of each block, without the byte order mark at the start of the file.

    Raises:
        NotTextError: The text contains a NUL byte or is not UTF-8.
    """
    offset = 0
    rest = b""  # The first bytes of a character that the previous block did not complete.
    for block in chain(blocks, [b""]):
        data = rest + block
        text, used = decode(data, offset, final=not block)
        rest = data[used:]
        yield text[1:] if offset == 0 and data.startswith(BYTE_ORDER_MARK) else text
        offset += used


def decode(data: bytes, offset: int, *, final: bool) -> tuple[str, int]:
    """Decode the complete characters of `data`, and return their text and their size in bytes.

    Args:
        data: Part of a file.
        offset: Position of `data` in the file, for error messages.
        final: Whether an incomplete character at the end is an error.

    Raises:
        NotTextError: The data contains a NUL byte or is not UTF-8.
    """
    nul = data.find(0)
    try:
        # An invalid byte before the NUL byte is the first error, so decode only up to the NUL byte.
        text, used = codecs.utf_8_decode(data if nul < 0 else data[:nul], "strict", final or nul >= 0)
    except UnicodeDecodeError as error:
        bad = error.start
        raise NotTextError(f"is not UTF-8 text (byte 0x{data[bad]:02x} at offset {offset + bad})") from None
    if nul >= 0:
        raise NotTextError(f"has a NUL byte at offset {offset + nul}")
    return text, used


def printable(text: str) -> str:
    """Escape line breaks, control characters, invisible characters, and characters that cannot be encoded."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character in PRINTABLE else ascii(character)[1:-1] for character in text
    )
