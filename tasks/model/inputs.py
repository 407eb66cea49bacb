"""Finding the input files of a run, and naming them."""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache

from tasks.errors import UsageError
from tasks.model.files import InputFile
from tasks.model.verdict import Category, FileError
from tasks.text import printable

# The start of a URL.
URL = re.compile(r"[A-Za-z][\w+.-]*://")


@dataclass(frozen=True, kw_only=True)
class LocalFiles:
    """The files of a run on this machine, as the user named them.

    Attributes:
        inputs: Files, folders, and patterns with ``*``, ``**``, ``?`` and ``[…]``.
        roots: Folders from which names start. Without any, each input has a root of its own.
        exclude: Patterns of the names of files to leave out.
        output_folder: Folder of the outputs, the table and the manifest.
        table: Another file for the table, or None.
        report_folder: Folder of the HTML report, or None.
    """

    inputs: Sequence[str]
    roots: Sequence[str] = ()
    exclude: Sequence[str] = ()
    output_folder: str = "results"
    table: str | None = None
    report_folder: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundFile:
    """An input file: its absolute path, and its path relative to its root, with forward slashes."""

    path: str
    name: str


def find_inputs(local: LocalFiles, outputs: Collection[str] = ()) -> list[FoundFile]:
    """Return the files that the inputs select, in the order of the inputs. Each file is returned once.

    An input that exists is a file or a folder, even if it contains the characters of a pattern. A folder stands for all
    files below it. Hidden files are left out of folders and of patterns that do not begin with a dot, too.

    Args:
        local: The inputs, the roots, and the names to leave out.
        outputs: Identities of files to leave out of folders and patterns, see `identity`. One that ends with a slash is
            a folder, and is left out of the folders and patterns that contain it.

    Raises:
        UsageError: An input does not exist, is neither a file nor a folder, cannot be read, or is below no root.
    """
    roots = sorted((os.path.abspath(root) for root in local.roots), key=len, reverse=True)
    found: dict[str, FoundFile] = {}
    for given in local.inputs:
        given_path = os.path.abspath(given)
        root, paths = _find(given, outputs)
        for path in paths:
            name = _name(path, roots or [root])
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
        raise UsageError(f"{printable(given)} is a URL: name files on this machine.")
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


def _name(path: str, roots: Sequence[str]) -> str:
    for root in roots:
        folder = os.path.join(root, "")
        if path.startswith(folder):
            return path.removeprefix(folder).replace(os.sep, "/")
    raise UsageError(f"{printable(path)} is below no `--root`: set another, or leave out the file.")


def unreadable_error(file: InputFile, error: OSError) -> FileError:
    """Return the error of a file that was readable when the run was planned, and no longer is."""
    return FileError(category=Category.INPUT, message=f"{printable(file.name)} cannot be read ({error.strerror})")


def changed_error(file: InputFile) -> FileError:
    """Return the error of a file whose content changed after the run was planned."""
    message = f"{printable(file.name)} was changed during the run: run again"
    return FileError(category=Category.INPUT, message=message)


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
