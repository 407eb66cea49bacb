"""Where `make up` says what it runs: a file in the state folder that it holds locked, so that none is taken for true later."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tasks.errors import ConfigurationError

FILE = "up.json"
POLL_SECONDS = 0.05

# Who only looks holds the file for microseconds.
TRY_SECONDS = 1.0


@contextmanager
def addresses_left(state: Path) -> Iterator[Callable[[Mapping[str, str]], None]]:
    """Say meanwhile that `make up` runs in this state folder; what is yielded writes the variables that lead there.

    Raises:
        ConfigurationError: Another one does, or the folder cannot be written.
    """
    try:
        state.mkdir(parents=True, exist_ok=True)
        # It holds the keys of the local Azure.
        file = os.fdopen(os.open(state / FILE, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"The state folder {state} cannot be written ({error.strerror}): set TOPN_STATE to another."
        ) from error
    with file:
        give_up_at = time.monotonic() + TRY_SECONDS
        while not _locked(file.fileno(), fcntl.LOCK_EX):
            if time.monotonic() > give_up_at:
                raise ConfigurationError(f"`make up` runs in {state} already: end it there, or set TOPN_STATE.")
            time.sleep(POLL_SECONDS)
        file.truncate(0)

        def write(variables: Mapping[str, str]) -> None:
            json.dump(dict(variables), file)
            file.flush()

        try:
            yield write
        finally:
            os.ftruncate(file.fileno(), 0)


def addresses_of_up(state: Path, starting: Callable[[], None]) -> dict[str, str]:
    """Read the variables that lead to what `make up` runs in this state folder; none if it does not run.

    Args:
        state: The folder.
        starting: Called once if it is starting; this waits until it has.
    """
    try:
        file = (state / FILE).open(encoding="utf-8")
    except OSError:
        return {}
    is_told = False
    with file:
        while not _locked(file.fileno(), fcntl.LOCK_SH):
            file.seek(0)
            if text := file.read():
                return {str(name): str(value) for name, value in json.loads(text).items()}
            if not is_told:
                starting()
                is_told = True
            time.sleep(POLL_SECONDS)
    return {}


def _locked(handle: int, how: int) -> bool:
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
