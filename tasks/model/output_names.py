"""Names of input files relative to their common folder, and names of their outputs."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Collection, Sequence

OUTPUT_SUFFIX = "_OUTPUT"

# Limit of most file systems. Source: NAME_MAX in linux/limits.h.
MAX_NAME_BYTES = 255

# Reserved for "_OUTPUT.json", or for the suffix of a temporary name.
RESERVED_SUFFIX_BYTES = 24


def names_below_common_folder(paths: Sequence[str]) -> list[str]:
    """Return absolute paths relative to the deepest folder that contains them all, with forward slashes."""
    common = os.path.commonpath([os.path.dirname(path) for path in paths])
    return [os.path.relpath(path, common).replace(os.sep, "/") for path in paths]


def output_names(names: Sequence[str]) -> list[str]:
    """Return the output name of each file: its stem, or its whole name if stems in a folder clash, and `_OUTPUT`.

    Names also clash if they differ only in case or in Unicode normalization, since some file systems do not
    distinguish them. If the whole names clash, a hash is appended to each.
    """
    choices = [(_shortened(_stem(name)), _shortened(name), _with_hash(name)) for name in names]
    chosen = [0] * len(names)
    while True:
        bases = [choice[number] for choice, number in zip(choices, chosen, strict=True)]
        clashes = [indexes for indexes in _indexes_by_name(bases) if len(indexes) > 1]
        if not clashes:
            return [base + OUTPUT_SUFFIX for base in bases]
        for indexes in clashes:
            # A file that already uses its whole name keeps it. Two names with hashes never clash.
            lowest = min(chosen[index] for index in indexes)
            for index in indexes:
                chosen[index] += chosen[index] == lowest


def _indexes_by_name(names: Sequence[str]) -> Collection[Sequence[int]]:
    """Group the indexes of names that the file systems of macOS or Windows treat as equal."""
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
    return base if len(name.encode()) <= MAX_NAME_BYTES - RESERVED_SUFFIX_BYTES else _with_hash(base)


def _with_hash(base: str) -> str:
    """Append a hash of the whole path to a name, and cut the name to the length limit."""
    folder, slash, name = base.rpartition("/")
    suffix = "~" + hashlib.sha256(base.encode()).hexdigest()[:16]
    max_bytes = MAX_NAME_BYTES - RESERVED_SUFFIX_BYTES - len(suffix)
    return folder + slash + name.encode()[:max_bytes].decode("utf-8", "ignore") + suffix
