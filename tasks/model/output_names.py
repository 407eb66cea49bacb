"""Names of files: how they are shown, and where a file's outputs go."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Collection, Sequence

OUTPUT_MARK = "_OUTPUT"


# The longest name that common file systems take. Source: NAME_MAX of Linux, limits.h.
MAX_NAME_BYTES = 255

# Room for "_OUTPUT.json" and for the ending of a temporary name beside it.
ROOM_FOR_SUFFIX_BYTES = 24


def names_below_common_folder(paths: Sequence[str]) -> list[str]:
    """Name absolute paths by where they are below the folder that holds them all, with forward slashes."""
    common = os.path.commonpath([os.path.dirname(path) for path in paths])
    return [os.path.relpath(path, common).replace(os.sep, "/") for path in paths]


def output_names(names: Sequence[str]) -> list[str]:
    """Say where each file's outputs go: its stem and `_OUTPUT`, or its whole name where stems in a folder clash.

    Names that some file system takes for one, since they differ by case or by how an accent is written, clash
    everywhere; where whole names do so, each gets a hash.
    """
    choices = [(_shortened(_stem(name)), _shortened(name), _marked(name)) for name in names]
    chosen = [0] * len(names)
    while True:
        bases = [choice[number] for choice, number in zip(choices, chosen, strict=True)]
        clashing = [same for same in _alike(bases) if len(same) > 1]
        if not clashing:
            return [base + OUTPUT_MARK for base in bases]
        for same in clashing:
            # Those that have their whole names may keep them. Two never clash with their hashes.
            least = min(chosen[index] for index in same)
            for index in same:
                chosen[index] += chosen[index] == least


def _alike(names: Sequence[str]) -> Collection[Sequence[int]]:
    """Group the places of names that file systems of macOS or Windows do not tell apart."""
    groups: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        key = unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())
        groups.setdefault(key, []).append(index)
    return groups.values()


def _stem(name: str) -> str:
    folder, _, base = name.rpartition("/")
    stem = os.path.splitext(base)[0]
    return f"{folder}/{stem}" if folder else stem


def _shortened(base: str) -> str:
    name = base.rpartition("/")[2]
    return base if len(name.encode()) <= MAX_NAME_BYTES - ROOM_FOR_SUFFIX_BYTES else _marked(base)


def _marked(base: str) -> str:
    """End a name with a hash of the whole of it, within the length that a name may have."""
    folder, slash, name = base.rpartition("/")
    mark = "~" + hashlib.sha256(base.encode()).hexdigest()[:16]
    room = MAX_NAME_BYTES - ROOM_FOR_SUFFIX_BYTES - len(mark)
    return folder + slash + name.encode()[:room].decode("utf-8", "ignore") + mark
