"""Search for secrets in files, database rows, and the command lines and environments of processes.

The search uses the longest run of letters and digits in a secret, because URL encoding, JSON and HTML do not change it.
It also searches for the Base64 and hexadecimal forms of that run.
"""

from __future__ import annotations

import base64
import re
import sqlite3
import threading
from pathlib import Path
from urllib.parse import unquote

from tests_support import all_processes

POLL_SECONDS = 0.02
MIN_LETTERS = 8

# The secret that the tests of this search plant.
SECRET = "ab/cd+SentinelOfThisTest0123456789/ef=="


def forms_of(secret):
    """Return the byte strings that reveal a secret in any encoding."""
    core = max(re.split(r"[^A-Za-z0-9]+", unquote(secret)), key=len)
    assert len(core) >= MIN_LETTERS, f"{secret} is too short to search for"
    raw = core.encode()
    found = {raw, raw.hex().encode(), raw.hex().upper().encode(), core.encode("utf-16-le")}
    for before in range(3):
        # The first and last characters depend on the neighbouring bytes.
        encoded = base64.b64encode(b"\0" * before + raw)
        whole = len(raw + b"\0" * before) // 3 * 4
        found.add(encoded[(0, 2, 3)[before] : whole])
    return found


class Search:
    """Searches for secrets, each known by a name."""

    def __init__(self, **secrets):
        self._forms = {}
        for name, secret in secrets.items():
            self.add(name, secret)

    def add(self, name, secret):
        self._forms[name] = forms_of(secret)

    @property
    def names(self):
        return set(self._forms)

    def found_in(self, content):
        """Return the names of the secrets that `content` contains."""
        return {name for name, forms in self._forms.items() if any(form in content for form in forms)}

    def found_below(self, *folders):
        """Return the names of the secrets found below `folders`, by file."""
        found = {}
        for path in (path for folder in folders for path in Path(folder).rglob("*") if path.is_file()):
            content = path.read_bytes()
            names = self.found_in(content)
            if content.startswith(b"SQLite format 3\0"):
                # A database page boundary can split a long value.
                names |= self.found_in(rows_of(path))
            if names:
                found[str(path)] = names
        return found


def rows_of(path):
    """Read the values of all rows of a database, including those in its write-ahead log."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60) as database:
        database.text_factory = bytes
        tables = [name.decode() for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        values = (
            value if isinstance(value, bytes) else str(value).encode()
            for table in tables
            for row in database.execute(f'SELECT * FROM "{table}"')
            for value in row
        )
        content = b"\n".join(values)
    database.close()
    return content


class Processes:
    """Records the command lines and environments of all processes while the context is open."""

    def __init__(self):
        self._seen = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._record, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()

    @property
    def texts(self):
        """The command line and environment of each process, as bytes."""
        return {command + b"\n" + environment for command, environment in list(self._seen)}

    def _record(self):
        while not self._ended.wait(POLL_SECONDS):
            self._seen.update((command, environment) for _, command, environment in all_processes())
