"""The input files that a user names."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Sequence

from tasks.errors import UsageError
from tasks.model.files import InputFile
from tasks.model.verdict import Category, FileError
from tasks.text import printable


def find_inputs(inputs: Sequence[str]) -> list[str]:
    """Turn names and patterns into absolute paths of files that can be read, each once, in the order given.

    A name that exists is that file, whatever its letters; any other is a pattern.

    Raises:
        UsageError: There is no input, or one is missing, is no file, or cannot be read.
    """
    paths: dict[str, None] = {}
    for given in inputs:
        found = [given] if os.path.lexists(given) else sorted(glob.glob(given, recursive=True))
        if not found:
            raise UsageError(f"{printable(given)} does not exist: name a file, or a pattern that matches one.")
        for name in found:
            path = os.path.normpath(os.path.abspath(name))
            _require_readable(name, path)
            paths[path] = None
    if not paths:
        raise UsageError("There is no input: name at least one file.")
    return list(paths)


def is_unreadable(file: InputFile, error: OSError) -> FileError:
    """Say that a file was there when the run was planned, and cannot be read any more."""
    return FileError(
        category=Category.INPUT, message=f"{printable(file.name)} cannot be read any more ({error.strerror})"
    )


def was_changed(file: InputFile) -> FileError:
    """Say that a file is not what it was when the run was planned."""
    message = f"{printable(file.name)} was changed while the run read it: run again"
    return FileError(category=Category.INPUT, message=message)


def _require_readable(name: str, path: str) -> None:
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
    if stat.S_ISDIR(mode):
        raise UsageError(f"{printable(name)} is a folder: name the files in it, for example {printable(name)}/*.txt.")
    if not stat.S_ISREG(mode):
        raise UsageError(f"{printable(name)} is not a regular file.")
