"""`prefect.toml`, with which all `prefect` commands in the folder of `make up` use its server.

Prefect reads this file in the current folder: https://docs.prefect.io/v3/concepts/settings-and-profiles. `make up`
holds a lock on it, so a file without a lock was left behind by one that was killed.
"""

from __future__ import annotations

import fcntl
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tasks.files import private_opener

PREFECT_TOML = Path("prefect.toml")
MARK = "# `make up` wrote this file, and deletes it when it stops."


@contextmanager
def published_in_prefect_toml(client_environment: Mapping[str, str]) -> Iterator[bool]:
    """Keep the file while the block runs, unless the user has one of their own.

    Yields:
        Whether `prefect` commands in this folder use the server now.
    """
    temporary = PREFECT_TOML.with_name("prefect.toml.new")
    values = [f'{name.removeprefix("PREFECT_API_").lower()} = "{value}"' for name, value in client_environment.items()]
    with ExitStack() as stack:
        # The folder may be read-only, and the user may have a file of this name.
        with suppress(OSError):
            file = stack.enter_context(open(temporary, "w", encoding="utf-8", opener=private_opener))
            stack.callback(temporary.unlink, missing_ok=True)
            fcntl.flock(file, fcntl.LOCK_EX)
            print(MARK, "[api]", *values, sep="\n", file=file, flush=True)
            # Unlike a rename, a link never replaces a file of the user.
            PREFECT_TOML.hardlink_to(temporary)
            stack.callback(_delete, client_environment)
            temporary.unlink()
        yield read_published_prefect_toml() == client_environment


def read_published_prefect_toml() -> dict[str, str]:
    """Return the variables that the file of a running `make up` sets, or an empty dictionary."""
    if not _is_ours():
        return {}
    values = re.findall(r'^(\w+) = "(.*)"$', PREFECT_TOML.read_text("utf-8"), re.MULTILINE)
    return {f"PREFECT_API_{name.upper()}": value for name, value in values}


def delete_stale_prefect_toml() -> None:
    """Delete a file that a killed `make up` left behind."""
    if not _is_ours():
        return
    with suppress(OSError), PREFECT_TOML.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        PREFECT_TOML.unlink()


def _delete(client_environment: Mapping[str, str]) -> None:
    """Delete the file of this `make up`, unless the user has replaced it."""
    if read_published_prefect_toml() == client_environment:
        PREFECT_TOML.unlink()


def _is_ours() -> bool:
    try:
        with PREFECT_TOML.open(encoding="utf-8", errors="replace") as file:
            return file.readline() == f"{MARK}\n"
    except OSError:
        return False
