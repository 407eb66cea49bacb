"""A Prefect server that starts fast in an empty state folder, because it copies a migrated database there.

    python -m flows.servers.prefect_server --fd 3

serves on a listening socket. Without `--fd`, it only creates the template of the database. The migrations of a new
database take three times as long as the rest of the start. Therefore they run once per virtual environment, and the
result is copied into each new state folder.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import shutil
import socket
import sqlite3
import stat
import sys
import tempfile
from contextlib import closing, suppress
from importlib.metadata import version
from pathlib import Path

from flows.servers.own_host import OwnHostOnly

DATABASE = "prefect.db"
PRIVATE_UMASK = 0o077
WRITABLE_BY_OTHERS = 0o022


def main() -> None:
    """Serve until SIGTERM if `--fd` is set, otherwise create the template."""
    parser = argparse.ArgumentParser(prog="python -m flows.servers.prefect_server", description=__doc__)
    parser.add_argument("--fd", type=int, help="file descriptor of a listening socket")
    # The database contains the parameters of runs, and the key with which Prefect encrypts blocks.
    os.umask(PRIVATE_UMASK)
    fd: int | None = parser.parse_args().fd
    if fd is None:
        _create_template()
    else:
        serve(fd)


def serve(fd: int) -> None:
    """Serve Prefect's API on a listening socket, with the database in `PREFECT_HOME`."""
    # The imports create a million permanent objects. Collecting garbage among them takes a tenth of the start.
    gc.disable()
    import uvicorn  # noqa: PLC0415 - see above
    from prefect.server.api.server import create_app  # noqa: PLC0415
    from prefect.settings import (  # noqa: PLC0415
        PREFECT_API_BLOCKS_REGISTER_ON_START,
        PREFECT_API_DATABASE_MIGRATE_ON_START,
        temporary_settings,
    )

    gc.freeze()
    gc.enable()
    is_complete = _ensure_database(template_path())
    skipped = {PREFECT_API_DATABASE_MIGRATE_ON_START: False, PREFECT_API_BLOCKS_REGISTER_ON_START: False}
    with temporary_settings(skipped if is_complete else {}):
        with socket.socket(fileno=os.dup(fd)) as listener:
            port: int = listener.getsockname()[1]
        uvicorn.run(OwnHostOnly(create_app(), port), fd=fd, log_level="warning")


def template_path() -> Path | None:
    """Return the path of the template for this version of Prefect, or None outside a virtual environment.

    The template is part of the virtual environment, because only the Prefect that created it can use it.
    """
    if sys.prefix == sys.base_prefix:
        return None
    return Path(sys.prefix, "share", "topn", f"prefect-{version('prefect')}.db")


def _create_template() -> None:
    """Create the template unless a working one exists."""
    if (template := template_path()) is None:
        return
    with tempfile.TemporaryDirectory() as home:
        # Prefect reads this variable on import.
        os.environ["PREFECT_HOME"] = home
        _ensure_database(template)


def _ensure_database(template: Path | None) -> bool:
    """Create the database unless it exists.

    Returns:
        True if the database is complete, so that the server can skip the migrations and the registration of blocks.
    """
    from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, PREFECT_HOME  # noqa: PLC0415 - takes seconds

    database = PREFECT_HOME.value() / DATABASE
    # A `prefect.toml` in the current folder may configure another database.
    is_default = PREFECT_API_DATABASE_CONNECTION_URL.value() == f"sqlite+aiosqlite:///{database}"
    if not is_default:
        return False
    if database.exists():
        # An older version may have created it with a mode that allows others to read it.
        for path in _database_files(database):
            with suppress(FileNotFoundError):
                path.chmod(0o600)
        return False
    _delete(database)
    if template is not None and copy_template(template, database):
        try:
            asyncio.run(_migrate())
            return True
        except Exception as error:  # noqa: BLE001 - the server must start even if the template is unusable
            print(f"Cannot use the template `{template}`, migrating a new database instead: {error!r}", file=sys.stderr)
            _delete(database)
    asyncio.run(_migrate(register_blocks=True))
    if template is not None:
        _save_template(database, template)
    return True


def _delete(database: Path) -> None:
    """Delete a database and its journals, which SQLite would otherwise apply to the next database of that name."""
    for path in _database_files(database):
        path.unlink(missing_ok=True)


def _database_files(database: Path) -> list[Path]:
    return [database.with_name(DATABASE + suffix) for suffix in ("", "-wal", "-shm")]


def copy_template(template: Path, database: Path) -> bool:
    """Copy a template to the path of a database.

    Returns:
        False if the template does not exist, is damaged, or could have been written by another user.
    """
    copy = database.with_name(f"{DATABASE}.{os.getpid()}")
    try:
        with open(template, "rb", opener=_open_regular) as source, copy.open("xb") as target:
            status = os.fstat(source.fileno())
            if status.st_uid != os.geteuid() or status.st_mode & WRITABLE_BY_OTHERS or not stat.S_ISREG(status.st_mode):
                return False
            shutil.copyfileobj(source, target)
        with closing(sqlite3.connect(copy)) as connection:
            is_whole = connection.execute("PRAGMA quick_check").fetchall() == [("ok",)]
            if not is_whole or not connection.execute("SELECT name FROM block_type LIMIT 1").fetchall():
                return False
        copy.replace(database)
    except (OSError, sqlite3.Error):
        return False
    finally:
        copy.unlink(missing_ok=True)
    return True


def _open_regular(path: str, flags: int) -> int:
    """Open a file without following a symbolic link, and without blocking on a named pipe."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


async def _migrate(*, register_blocks: bool = False) -> None:
    """Run the missing migrations, and register Prefect's own block types if requested."""
    from prefect.server.database import provide_database_interface  # noqa: PLC0415 - takes seconds
    from prefect.server.models.block_registration import run_block_auto_registration  # noqa: PLC0415

    interface = provide_database_interface()
    try:
        await interface.create_db()
        if register_blocks:
            async with await interface.session() as session:
                await run_block_auto_registration(session=session)
    finally:
        await (await interface.engine()).dispose()


def _save_template(database: Path, template: Path) -> None:
    """Save a copy of a new database as the template. It contains no runs, settings or keys yet."""
    # The virtual environment may be read-only. Then each first start in a state folder runs the migrations.
    with suppress(OSError, sqlite3.Error):
        template.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=template.parent) as folder, closing(sqlite3.connect(database)) as source:
            copy = Path(folder, DATABASE)
            source.execute("VACUUM INTO ?", (str(copy),))
            copy.replace(template)


if __name__ == "__main__":
    main()
