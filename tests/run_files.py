"""Input files of runs that several tests share."""

from __future__ import annotations

# Three of these fail.
MIXED_FILES = {
    "good.txt": b"a b a",
    "latin1.txt": "d\xe9j\xe0".encode("latin-1"),
    "nul.txt": b"one two\0",
    "empty.txt": b"",
    "blank.txt": b" \n\t... --- !\n",
    "b|`ad.txt": b"\xff",
}

# Names that a shell, an option parser, rich's markup or a URL would misinterpret.
HOSTILE_NAMES = [
    "with space.txt",
    "'single'.txt",
    '"double".txt',
    "$(touch pwned).txt",
    "`touch pwned`.txt",
    "a;touch pwned;.txt",
    "&& touch pwned.txt",
    "-n.txt",
    "--output=pwned.txt",
    "line\nbreak.txt",
    "grüße-日本語-🎉.txt",
    "[brackets].txt",
    "[red]markup.txt",
    "percent%41.txt",
    "back\\slash.txt",
    "#fragment?query.txt",
    "x" * 251 + ".txt",
    "{braces}.txt",
]
