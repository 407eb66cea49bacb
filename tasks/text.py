"""Formatting of text for terminals and tables."""

from __future__ import annotations

# Characters in a table cell or in a line.
DEFAULT_MAX_LENGTH = 160


def printable(name: str) -> str:
    """Return a name that prints on one line: control characters and lone surrogates become escape sequences."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode()
        for character in name
    )


def cut(text: str, max_length: int = DEFAULT_MAX_LENGTH) -> str:
    """Shorten a text to `max_length` characters. The middle is removed, since names often differ at the end."""
    if len(text) <= max_length:
        return text
    head = max_length // 3
    return f"{text[:head]}…{text[len(text) - (max_length - head - 1) :]}"
