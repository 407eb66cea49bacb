"""Finding the input files of a run, and naming them."""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from typing import Protocol

from tasks.errors import ConfigurationError, UsageError
from tasks.model.files import InputFile
from tasks.model.urls import AZ, URL, parse_place
from tasks.model.verdict import Category, FileError
from tasks.text import printable

DELETED = "was deleted during the run"


@dataclass(frozen=True, kw_only=True)
class LocalFiles:
    """The files of a run, as the user named them.

    Attributes:
        inputs: Files, folders, and patterns with ``*``, ``**``, ``?`` and ``[…]``, on this machine or in Blob Storage.
        roots: Folders from which names start. Without any, each input has a root of its own.
        exclude: Patterns of the names of files to leave out.
        output_folder: Folder of the outputs, the table and the manifest.
        table: Another file for the table, or None.
        report_folder: Folder of the HTML report, or None.
        corpus_names: Names of the documents of the corpus in the output folder.
    """

    inputs: Sequence[str]
    roots: Sequence[str] = ()
    exclude: Sequence[str] = ()
    output_folder: str = "results"
    table: str | None = None
    report_folder: str | None = None
    corpus_names: Sequence[str] = ()

    @property
    def has_blobs(self) -> bool:
        """Whether an input is in Blob Storage.

        Raises:
            UsageError: An input is a URL, but not one of Blob Storage.
        """
        return bool([parse_place("The input", given) for given in self.inputs if URL.match(given)])

    @property
    def uses_storage(self) -> bool:
        """Whether an input or an output is in Blob Storage.

        Raises:
            UsageError: As `has_blobs`.
        """
        places = (self.output_folder, self.table, self.report_folder)
        return self.has_blobs or any(place is not None and URL.match(place) for place in places)


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundFile:
    """An input file on this machine or in Blob Storage.

    Attributes:
        path: Absolute path, or URL of the blob.
        name: Path relative to its root, with forward slashes.
        size_bytes: Size of the blob.
        etag: ETag of the blob; "" for a file on this machine.
        problem: Why nodes cannot read the blob; "" if nothing is known.
        container: Name of the account and of the container, with a slash in between.
        folder: The part of the blob's name that its input fixes, up to a slash.
    """

    path: str
    name: str
    size_bytes: int = 0
    etag: str = ""
    problem: str = ""
    container: str = ""
    folder: str = ""


class Blobs(Protocol):
    """What finds blobs. An address is the name of an account, of a container and of a blob, with slashes in between."""

    def address(self, given: str) -> str:
        """Return the address of a URL, with a slash at the end."""

    def find(self, given: str) -> tuple[str, list[FoundFile]]:
        """Return the address of the root of an input, and its blobs, which have their addresses as names."""


def find_inputs(local: LocalFiles, outputs: Collection[str] = (), blobs: Blobs | None = None) -> list[FoundFile]:
    """Return the files that the inputs select, in the order of the inputs. Each file is returned once.

    An input that exists is a file or a folder, even if it contains the characters of a pattern. A folder stands for all
    files below it. Hidden files are left out of folders and of patterns that do not begin with a dot, too.

    Args:
        local: The inputs, the roots, and the names to leave out.
        outputs: Identities of files to leave out of folders and patterns, see `identity`. One that ends with a slash is
            a folder, and is left out of the folders and patterns that contain it.
        blobs: What finds inputs in Blob Storage.

    Raises:
        UsageError: An input does not exist, is neither a file nor a folder, cannot be read, or is below no root.
    """
    roots = [os.path.join(os.path.abspath(root), "") for root in local.roots if not URL.match(root)]
    found: dict[str, FoundFile] = {}
    for given in local.inputs:
        if blobs is not None and URL.match(given):
            blob_roots = [blobs.address(root) for root in local.roots if URL.match(root)]
            blob_root, listed = blobs.find(given)
            for blob in listed:
                name = _name(blob.name, blob.path, blob_roots if local.roots else [blob_root])
                if not any(matches(name, pattern) for pattern in local.exclude):
                    found.setdefault(f"{AZ}{blob.name}", replace(blob, name=name))
            continue
        given_path = os.path.abspath(given)
        root, paths = _find(given, outputs)
        for path in paths:
            name = _name(path, path, roots if local.roots else [os.path.join(root, "")]).replace(os.sep, "/")
            if any(matches(name, pattern) for pattern in local.exclude):
                continue
            _check_readable(given if path == given_path else path, path)
            found.setdefault(identity(path), FoundFile(path=path, name=name))
    if not found:
        raise UsageError(
            "`--exclude` leaves out all inputs." if local.inputs else "There is no input: name at least one file."
        )
    return list(found.values())


def identity(path: str) -> str:
    """Return a path without links to folders, which is the same for all paths of a file except links to the file."""
    folder, base = os.path.split(os.path.abspath(path))
    return os.path.join(real_folder(folder), base)


@cache
def real_folder(folder: str) -> str:
    """Return the path of a folder without links. Clear the cache before each use, since folders can change."""
    return os.path.realpath(folder)


def matches(name: str, pattern: str) -> bool:
    """Check whether a pattern matches a whole name. Only ``**`` matches several folders."""
    return _match_parts(name.split("/"), pattern.split("/"))


def before_wildcard(pattern: str) -> str:
    """Return the start of a pattern that each matching name has."""
    return re.split(r"[*?\[]", pattern, maxsplit=1)[0]


def _match_parts(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_match_parts(parts[start:], pattern[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _match_parts(parts[1:], pattern[1:])


def _find(given: str, outputs: Collection[str]) -> tuple[str, list[str]]:
    """Return the root of an input, and the paths of its files."""
    path = os.path.abspath(given)
    if os.path.isdir(path):
        return path, _without_outputs(given, path, _walk(path, ["**"]), outputs)
    if os.path.lexists(path):
        return os.path.dirname(path), [path]
    if URL.match(given):
        parse_place("The input", given)
        raise ConfigurationError(f"{printable(given)} is in Blob Storage, and no Azure is configured.")
    root, pattern = _split(given)
    if not pattern:
        raise UsageError(f"{printable(given)} does not exist: name a file, a folder, or a pattern that matches a file.")
    return root, _without_outputs(given, root, _walk(root, pattern), outputs)


def _split(given: str) -> tuple[str, list[str]]:
    """Split a pattern into the folder before its first wildcard, and the rest. Names that exist are no wildcards."""
    root = "/" if given.startswith("/") else ""
    parts = [part for part in given.split("/") if part not in {"", "."}]
    while len(parts) > 1 and (not glob.has_magic(parts[0]) or os.path.lexists(os.path.join(root, parts[0]))):
        root = os.path.join(root, parts.pop(0))
    if not any(glob.has_magic(part) for part in parts):
        return root, []
    if ".." in parts:
        raise UsageError(f"{printable(given)} has `..` after a wildcard: name the folder instead.")
    # `**/**` means the same as `**`, but takes longer.
    pairs = zip(parts, ["", *parts], strict=False)
    return os.path.abspath(root), [part for part, before in pairs if (part, before) != ("**", "**")]


def _walk(folder: str, pattern: Sequence[str]) -> Iterator[str]:
    """Yield the paths of the files below a folder that match a pattern. ``**`` does not follow links to folders."""
    first, rest = pattern[0], pattern[1:]
    if first == "**" and rest:
        yield from _walk(folder, rest)
    for entry in _entries(folder):
        if entry.name.startswith(".") and not first.startswith("."):
            continue
        if first == "**" and entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, pattern)
        elif (first == "**" and rest) or not (first == "**" or fnmatchcase(entry.name, first)):
            continue
        elif rest:
            if entry.is_dir():
                yield from _walk(entry.path, rest)
        elif entry.is_file() or (entry.is_symlink() and not entry.is_dir()):
            yield entry.path


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a file name"
        raise UsageError(f"The folder {printable(folder)} cannot be read ({reason}).") from error


def _without_outputs(given: str, root: str, paths: Iterator[str], outputs: Collection[str]) -> list[str]:
    found = sorted(set(paths))
    if not found:
        raise UsageError(
            f"{printable(given)} matches no file: name a file, a folder, or a pattern that matches a file."
        )
    above = os.path.join(real_folder(root), "")
    folders = tuple(path for path in outputs if path.endswith("/") and path.startswith(above) and path != above)
    inputs = [path for path in found if (own := identity(path)) not in outputs and not own.startswith(folders)]
    if not inputs:
        raise UsageError(f"{printable(given)} matches only outputs of earlier runs: name the inputs.")
    return inputs


def _name(address: str, shown: str, roots: Sequence[str]) -> str:
    """Return the part of an address below the longest root that contains it. Roots end with a slash."""
    for root in sorted(roots, key=len, reverse=True):
        if address.startswith(root):
            return address.removeprefix(root)
    raise UsageError(f"{printable(shown)} is below no `--root`: set another, or leave out the file.")


def blob_error(file: InputFile, code: str) -> str | None:
    """Return why a node could not download a blob, by the error code of Batch."""
    reasons = {
        "BlobNotFound": DELETED,
        "BlobAccessDenied": "may not be read by the nodes: check the firewall and the roles of its storage account",
    }
    return f"{printable(file.name)} {reasons[code]}" if file.etag and code in reasons else None


def unreadable_error(file: InputFile, error: OSError) -> FileError:
    """Return the error of a file that was readable when the run was planned, and no longer is."""
    return FileError(category=Category.INPUT, message=f"{printable(file.name)} cannot be read ({error.strerror})")


def changed_error(file: InputFile) -> FileError:
    """Return the error of a file whose content changed after the run was planned."""
    message = f"{printable(file.name)} was changed during the run: run again"
    return FileError(category=Category.INPUT, message=message)


def deleted_error(file: InputFile) -> FileError:
    """Return the error of a blob that was deleted after the run was planned."""
    return FileError(category=Category.INPUT, message=f"{printable(file.name)} {DELETED}")


def _check_readable(name: str, path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise UsageError(f"The name {printable(name)} is not UTF-8: rename the file.") from None
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for a writer.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise UsageError(f"{printable(name)} cannot be read ({error.strerror}).") from error
    try:
        mode = os.fstat(handle).st_mode
    finally:
        os.close(handle)
    if not stat.S_ISREG(mode):
        raise UsageError(f"{printable(name)} is not a regular file.")
