"""Formatting of text for terminals, pages and tables."""

from __future__ import annotations

# Characters in a table cell or in a line.
DEFAULT_MAX_LENGTH = 160

# Parts of ordinary names and words that `str.isprintable` rejects: spaces of several scripts, and the joiners in Persian
# and Indic words and in emoji.
PRINTABLE = frozenset("\u00a0\u200c\u200d\u202f\u3000")


def printable(text: str) -> str:
    """Return a text that prints on one line. What could move the cursor, reorder or hide text becomes an escape sequence.

    This includes control characters, line breaks, bidirectional controls, invisible characters and lone surrogates.
    """
    return _printable(text, PRINTABLE)


def printable_lines(text: str) -> str:
    """Return a text that prints without control characters, except line breaks and tabs."""
    return _printable(text, PRINTABLE | {"\n", "\t"})


def quantity(count: int, noun: str) -> str:
    """Return a number of things, such as "1 file" or "1,200 files"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def shorten(text: str, max_length: int = DEFAULT_MAX_LENGTH) -> str:
    """Shorten a text to `max_length` characters. The middle is removed, since names often differ at the end."""
    if len(text) <= max_length:
        return text
    head = max_length // 3
    return f"{text[:head]}…{text[len(text) - (max_length - head - 1) :]}"


def _printable(text: str, kept: frozenset[str]) -> str:
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or character in kept
        else character.encode("unicode_escape", "surrogatepass").decode()
        for character in text
    )
