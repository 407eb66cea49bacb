"""Input files."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class InputFile:
    """One input file.

    Attributes:
        path: Absolute path on this machine.
        name: Path relative to the root of its input, with forward slashes.
        output: Path of its outputs relative to the output folder, without the extension (``reports/a_OUTPUT``).
        sha256: SHA-256 hash of its content, in hexadecimal.
        size_bytes: Size of its content.
        content_key: Hash of everything that its result depends on. Results are stored under it.
        copies: Paths of the other inputs with the same content. Each of them can be read instead.
    """

    path: str
    name: str
    output: str
    sha256: str
    size_bytes: int
    content_key: str
    copies: tuple[str, ...] = ()
