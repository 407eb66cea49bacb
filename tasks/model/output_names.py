"""Names of the outputs of input files, and clashes between them."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Collection, Iterator, Sequence

from tasks.errors import UsageError
from tasks.model.inputs import FoundFile
from tasks.text import printable

OUTPUT_SUFFIX = "_OUTPUT"

# The suffix of inputs that outputs do not repeat.
TEXT_SUFFIX = ".txt"

# Limit of most file systems. Source: NAME_MAX in linux/limits.h.
MAX_NAME_BYTES = 255

# Reserved for "_OUTPUT.json", or for the suffix of a temporary name.
RESERVED_SUFFIX_BYTES = 24


def output_name(name: str) -> str:
    """Return the output name of a file: its name without a final `.txt`, and `_OUTPUT`. It depends on nothing else."""
    folder, slash, base = name.rpartition("/")
    stem = base.removesuffix(TEXT_SUFFIX) or base
    max_bytes = MAX_NAME_BYTES - RESERVED_SUFFIX_BYTES
    if len(stem.encode()) > max_bytes:
        mark = "~" + hashlib.sha256(name.encode()).hexdigest()[:16]
        stem = stem.encode()[: max_bytes - len(mark)].decode("utf-8", "ignore") + mark
    return folder + slash + stem + OUTPUT_SUFFIX


def check_clashes(files: Sequence[FoundFile], suffixes: Collection[str], documents: Collection[str]) -> None:
    """Check that no two files have the same name or outputs at the same path, also where case does not count.

    Args:
        files: The input files.
        suffixes: The suffixes of the outputs of each file.
        documents: Names of the other files in the output folder.

    Raises:
        UsageError: Two files clash.
    """
    owners: dict[str, FoundFile | None] = {folded(document): None for document in documents}
    for file in files:
        output = output_name(file.name)
        for key in {folded(output + suffix) for suffix in suffixes}:
            _check_free(key, file, owners)
            owners[key] = file
    for file in files:
        for key in _folders(folded(output_name(file.name))):
            _check_free(key, file, owners)


def folded(path: str) -> str:
    """Return the same text for paths that the file systems of macOS or Windows treat as equal."""
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", path).casefold())


def _folders(path: str) -> Iterator[str]:
    parts = path.split("/")
    for count in range(1, len(parts)):
        yield "/".join(parts[:count])


def _check_free(key: str, file: FoundFile, owners: dict[str, FoundFile | None]) -> None:
    if key not in owners:
        return
    other = owners[key]
    if other is None:
        raise UsageError(
            f"{printable(file.path)} has outputs at `{printable(key)}`, which is a file of the run itself. Set `--root` to "
            "another folder, or leave it out with `--exclude`."
        )
    is_same = other.name == file.name
    shared = (
        f"the same name, {printable(file.name)}"
        if is_same
        else f"outputs at the same path, {printable(output_name(file.name))}"
    )
    raise UsageError(
        f"{printable(other.path)} and {printable(file.path)} have {shared}. Set `--root` to a "
        "folder above both, or leave one out with `--exclude`."
    )
