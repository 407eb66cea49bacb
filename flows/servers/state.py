"""The files that the servers keep in the state folder. Only the owner of the folder can read them."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

from tasks.errors import ConfigurationError
from tasks.files import ensure_private_folder, private_opener


def open_state_file(state: Path, name: str, mode: str) -> IO[Any]:
    """Open a file in the state folder, which is created or closed to other users.

    Args:
        state: The state folder.
        name: The name of the file.
        mode: The mode, as for `open`.

    Raises:
        ConfigurationError: The folder or the file cannot be written.
    """
    try:
        ensure_private_folder(state)
        return open(state / name, mode, encoding=None if "b" in mode else "utf-8", opener=private_opener)
    except OSError as error:
        raise ConfigurationError(
            f"Cannot write to the state folder `{state}` ({error.strerror}). Set `TOPN_STATE` to another folder."
        ) from error
