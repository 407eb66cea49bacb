"""An input file."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class InputFile:
    """One file to work on.

    Attributes:
        path: Absolute path on this machine.
        name: Path below the inputs' common folder, with forward slashes.
        output: Where its outputs go below the output folder, without the suffix (``reports/a_OUTPUT``).
        sha256: Hash of its content.
        size_bytes: Its length.
        content_key: Hash of everything that its result depends on; names the result for ever.
        copies: Paths of the other inputs with this content; any of them can be read instead.
    """

    path: str
    name: str
    output: str
    sha256: str
    size_bytes: int
    content_key: str
    copies: tuple[str, ...] = ()
