"""Writing files on this machine: outputs, which the umask protects, and files that are for this user only."""

from __future__ import annotations

import errno
import filecmp
import os
import secrets
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

ACCESS_BY_OTHERS = 0o077


def write_atomically(path: Path, content: bytes | Iterable[bytes] | Callable[[BinaryIO], object]) -> None:
    """Write a file atomically: write a temporary file beside it, and rename that. The umask determines its mode.

    A file that has this content already is left as it is.

    Args:
        path: The file. Its folder is created if it does not exist.
        content: The content, blocks of it, or a function that writes it to the open file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".topn-{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            if callable(content):
                content(file)
            else:
                file.writelines([content] if isinstance(content, bytes) else content)
        if path.is_file() and not path.is_symlink() and filecmp.cmp(temporary, path, shallow=False):
            temporary.unlink()
        else:
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def ensure_private_folder(folder: Path) -> None:
    """Create a folder that only its owner can enter, or close an existing one to other users.

    Raises:
        OSError: The folder cannot be created or closed, or is one that all users share, such as `/tmp`.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & stat.S_ISVTX:
        raise PermissionError(errno.EPERM, "All users share it", str(folder))
    if mode & ACCESS_BY_OTHERS:
        folder.chmod(mode & ~ACCESS_BY_OTHERS)


def private_opener(path: str, flags: int) -> int:
    """Open a file that only its owner can read and write. This is an `opener` for `open`."""
    descriptor = os.open(path, flags, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor
