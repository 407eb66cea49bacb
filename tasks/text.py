"""Text for terminals, tables and file names."""

from __future__ import annotations

# What a cell or a line takes of a text.
MAX_LETTERS = 160


def printable(name: str) -> str:
    """Make a name fit for one line of a terminal: control characters and broken letters are written as escapes."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape", "surrogatepass").decode() for letter in name
    )


def cut(text: str, letters: int = MAX_LETTERS) -> str:
    """Shorten a text for a cell or a line; the middle goes, since names differ at their ends."""
    if len(text) <= letters:
        return text
    head = letters // 3
    return f"{text[:head]}…{text[len(text) - (letters - head - 1) :]}"
