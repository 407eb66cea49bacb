"""What other users of the machine cannot read: the folder of a local Azure, and the keys of its accounts in it."""

from __future__ import annotations

import base64
import os
import secrets
import stat
from pathlib import Path

# Nobody but the owner can read what a process with this umask creates.
PRIVATE_UMASK = 0o077

# The size of the keys of real accounts.
KEY_BYTES = 64


def ensure_private_folder(folder: Path) -> None:
    """Create a folder that only its owner can enter, or close an existing one to others.

    Raises:
        OSError: The folder cannot be closed, because all users share it or it belongs to another one.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    mode = folder.stat().st_mode
    if mode & stat.S_ISVTX:
        raise PermissionError(f"All users share the folder {folder}. Use another one for the data of the local Azure.")
    if mode & PRIVATE_UMASK:
        folder.chmod(stat.S_IMODE(mode) & ~PRIVATE_UMASK)


def new_key() -> str:
    """Return a random key for an account, in Base64."""
    return base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()


def load_key(file: Path) -> str:
    """Return the key in a file, which is created with a random key on first use."""
    if not file.exists():
        temporary = file.with_name(f"{file.name}.new")
        temporary.unlink(missing_ok=True)
        with open(temporary, "x", opener=lambda path, flags: os.open(path, flags, 0o600)) as new:
            new.write(new_key())
        temporary.replace(file)
    return file.read_text()
