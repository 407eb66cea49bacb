"""Finding and checking the input files of a run."""

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
    """Return the absolute paths of the readable files that names and patterns match, without duplicates, in order.

    A name that exists is a file, even if it contains pattern characters. Every other name is a pattern.

    Raises:
        UsageError: There is no input, or an input does not exist, is not a regular file or cannot be read.
    """
    paths: dict[str, None] = {}
    for pattern in inputs:
        names = [pattern] if os.path.lexists(pattern) else sorted(glob.glob(pattern, recursive=True))
        if not names:
            raise UsageError(f"{printable(pattern)} does not exist: name a file, or a pattern that matches one.")
        for name in names:
            path = os.path.normpath(os.path.abspath(name))
            _check_readable(name, path)
            paths[path] = None
    if not paths:
        raise UsageError("There is no input: name at least one file.")
    return list(paths)


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
    if stat.S_ISDIR(mode):
        raise UsageError(f"{printable(name)} is a folder: name the files in it, for example {printable(name)}/*.txt.")
    if not stat.S_ISREG(mode):
        raise UsageError(f"{printable(name)} is not a regular file.")
