"""The database template of a Prefect server on a new state folder."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from tests_support import send_to_prefect

from flows.servers.prefect_server import template_path
from flows.servers.processes import PrefectServer

CREATE = """
import sys
from pathlib import Path
from flows.servers import prefect_server
template = Path(sys.argv.pop())
prefect_server.template_path = lambda: template
prefect_server.main()
"""


def rows(database):
    """Count the rows of each table that has any."""
    with closing(sqlite3.connect(database)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        counts = {table: connection.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0] for table in tables}
    return {table: count for table, count in counts.items() if count}


def test_unmigratable_template_is_replaced(tmp_path):
    """The new template has Prefect's own block types and no user data."""
    template = tmp_path / "template.db"
    shutil.copy(template_path(), template)
    with closing(sqlite3.connect(template)) as database:
        database.execute("UPDATE alembic_version SET version_num = 'foreign'")
        database.commit()

    command = [sys.executable, "-c", CREATE, str(template)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)

    assert done.returncode == 0, done.stderr
    assert f"Cannot use the template `{template}`" in done.stderr
    assert rows(template).keys() == {"alembic_version", "block_schema", "block_schema_reference", "block_type"}
    assert template.stat().st_mode & 0o077 == 0
    assert list(tmp_path.iterdir()) == [template]


def test_server_starts_on_template_copy(tmp_path):
    """The write-ahead log of a deleted database is not applied to the new one."""
    tmp_path.joinpath("prefect.db-wal").write_bytes(Path(sys.executable).read_bytes()[:100_000])
    with PrefectServer(tmp_path) as server:
        server.wait()
        found = send_to_prefect(server.api_url, "/block_types/slug/secret", password=server.password)
    assert found["slug"] == "secret"
    assert rows(tmp_path / "prefect.db")["block_type"] == rows(template_path())["block_type"]
    assert (tmp_path / "prefect-server.log").read_text() == ""
