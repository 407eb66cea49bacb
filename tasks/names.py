"""Names of files: how they are shown, and where a file's outputs go."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence

OUTPUT_MARK = "_OUTPUT"

# What a cell or a line takes of a text.
MOST_LETTERS = 160

# The longest name that common file systems take. Source: NAME_MAX of Linux, limits.h.
LONGEST_NAME_BYTES = 255

# Room for "_OUTPUT.json" and for the ending of a temporary name beside it.
ROOM_FOR_SUFFIX_BYTES = 24


def shown(name: str) -> str:
    """Make a name fit for one line of a terminal: control characters and broken letters are written as escapes."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape", "surrogatepass").decode() for letter in name
    )


def cut(text: str, letters: int = MOST_LETTERS) -> str:
    """Shorten a text for a cell or a line; the middle goes, since names differ at their ends."""
    if len(text) <= letters:
        return text
    head = letters // 3
    return f"{text[:head]}…{text[len(text) - (letters - head - 1) :]}"


def names_below_common_folder(paths: Sequence[str]) -> list[str]:
    """Name absolute paths by where they are below the folder that holds them all, with forward slashes."""
    common = os.path.commonpath([os.path.dirname(path) for path in paths])
    return [os.path.relpath(path, common).replace(os.sep, "/") for path in paths]


def output_names(names: Sequence[str]) -> list[str]:
    """Say where each file's outputs go: its stem and `_OUTPUT`, or its whole name where stems in a folder clash."""
    bases = [_stem(name) for name in names]
    while clashing := {base for base, count in Counter(bases).items() if count > 1}:
        # Whole names are unique, so each round gives at least one more file its whole name.
        bases = [name if base in clashing else base for name, base in zip(names, bases, strict=True)]
    return [_shortened(base) + OUTPUT_MARK for base in bases]


def _stem(name: str) -> str:
    folder, _, base = name.rpartition("/")
    stem = os.path.splitext(base)[0]
    return f"{folder}/{stem}" if folder else stem


def _shortened(base: str) -> str:
    folder, slash, name = base.rpartition("/")
    room = LONGEST_NAME_BYTES - ROOM_FOR_SUFFIX_BYTES
    raw = name.encode()
    if len(raw) <= room:
        return base
    mark = "~" + hashlib.sha256(raw).hexdigest()[:16]
    return folder + slash + raw[: room - len(mark)].decode("utf-8", "ignore") + mark
