"""Names of the outputs of input files, and clashes between them."""

from __future__ import annotations

import hashlib
import re
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


# What cannot be in a path on this machine or in Blob Storage: control characters, which a listing of blobs cannot contain;
# a backslash, which Storage turns into a slash; and a dot at the end of a folder, which Storage removes.
ENCODED = re.compile(r"[\x00-\x1f\x7f\\\ufffe\uffff]|\.(?=\.*\Z)", re.ASCII)

# Stands for an empty segment.
EMPTY = "%2F"

# A text with one of these is encoded too, so that no two texts look the same.
ENCODED_ALREADY = re.compile("%(25|2F|2E|5C|7F|EF%BF%B[EF]|[01][0-9A-F])")

# The end of a name that was too long.
HASHED = re.compile(r"~[0-9a-f]{16}\Z")


def output_name(name: str) -> str:
    """Return the output name of a file: its name without a final `.txt`, and `_OUTPUT`. It depends on nothing else.

    Parts of blob names that cannot be in a path are percent-encoded, and parts that are too long end in a hash.
    """
    *folders, base = name.split("/")
    stem = base.removesuffix(TEXT_SUFFIX) or base
    parts = [_shorten(_encode(folder) or EMPTY, folder, MAX_NAME_BYTES) for folder in folders]
    # The suffix follows, so dots are allowed at the end.
    return (
        "/".join([*parts, _shorten(_encode(f"{stem}/")[:-1], name, MAX_NAME_BYTES - RESERVED_SUFFIX_BYTES)])
        + OUTPUT_SUFFIX
    )


def _encode(part: str) -> str:
    if not (ENCODED.search(part) or ENCODED_ALREADY.search(part)):
        return part
    return ENCODED.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), part.replace("%", "%25"))


def _shorten(part: str, whole: str, max_bytes: int) -> str:
    if len(part.encode()) <= max_bytes and not HASHED.search(part):
        return part
    mark = "~" + hashlib.sha256(whole.encode()).hexdigest()[:16]
    return part.encode()[: max_bytes - len(mark)].decode("utf-8", "ignore") + mark


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
