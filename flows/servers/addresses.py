"""The addresses of the servers of `make up`, in a file in the state folder.

`make up` locks the file while it runs. The contents of an unlocked file are stale.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from flows.servers.state import open_state_file
from tasks.errors import ConfigurationError

ADDRESSES_FILE = "up.json"
POLL_SECONDS = 0.05

# Readers hold the lock for microseconds.
LOCK_TIMEOUT_SECONDS = 1.0


@contextmanager
def publish_addresses(state: Path) -> Iterator[Callable[[Mapping[str, str]], None]]:
    """Hold the lock of `make up` and yield a function that publishes the variables that point to its servers.

    Raises:
        ConfigurationError: `make up` already runs in this state folder, or the folder cannot be written.
    """
    # Opening the file to append keeps the addresses that another `make up` has published.
    with open_state_file(state, ADDRESSES_FILE, "a") as file:
        deadline = time.monotonic() + LOCK_TIMEOUT_SECONDS
        while not _try_lock(file.fileno(), fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise ConfigurationError(f"`make up` already runs in `{state}`. Stop it, or set `TOPN_STATE`.")
            time.sleep(POLL_SECONDS)
        file.truncate(0)

        def write(variables: Mapping[str, str]) -> None:
            json.dump(dict(variables), file)
            file.flush()

        try:
            yield write
        finally:
            os.ftruncate(file.fileno(), 0)


def read_published_addresses(state: Path, starting: Callable[[], None]) -> dict[str, str]:
    """Return the variables that point to the servers of `make up`, or an empty dictionary if it does not run.

    Wait while `make up` is starting.

    Args:
        state: The state folder.
        starting: Called once if `make up` is starting.
    """
    try:
        file = (state / ADDRESSES_FILE).open(encoding="utf-8")
    except OSError:
        return {}
    is_notified = False
    with file:
        while not _try_lock(file.fileno(), fcntl.LOCK_SH):
            file.seek(0)
            if text := file.read():
                return {str(name): str(value) for name, value in json.loads(text).items()}
            if not is_notified:
                starting()
                is_notified = True
            time.sleep(POLL_SECONDS)
    return {}


def _try_lock(fd: int, operation: int) -> bool:
    try:
        fcntl.flock(fd, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
