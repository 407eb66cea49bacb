"""Search for secrets in all that can be read: files, rows of databases, command lines and environments of processes.

A secret is looked for by its longest run of letters and digits, which URL-encoding, JSON and HTML leave as it is, and by
what Base64 and hexadecimal digits make of that.
"""

from __future__ import annotations

import base64
import re
import sqlite3
import threading
from pathlib import Path
from urllib.parse import unquote

POLL_SECONDS = 0.02
MIN_LETTERS = 8

# What the tests of the search plant.
SECRET = "ab/cd+SentinelOfThisTest0123456789/ef=="


def forms_of(secret):
    """What of a secret stands in a text that holds it, however it is encoded there."""
    core = max(re.split(r"[^A-Za-z0-9]+", unquote(secret)), key=len)
    assert len(core) >= MIN_LETTERS, f"{secret} is too short to be searched for"
    raw = core.encode()
    found = {raw, raw.hex().encode(), raw.hex().upper().encode(), core.encode("utf-16-le")}
    for before in range(3):
        # The first and the last letters depend on what stands beside.
        encoded = base64.b64encode(b"\0" * before + raw)
        whole = len(raw + b"\0" * before) // 3 * 4
        found.add(encoded[(0, 2, 3)[before] : whole])
    return found


class Search:
    """Secrets by name, and where they were found."""

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
        """The names of the secrets that some bytes hold."""
        return {name for name, forms in self._forms.items() if any(form in content for form in forms)}

    def found_below(self, *folders):
        """The secrets in all files below folders, by file; databases are read row by row, too."""
        found = {}
        for path in (path for folder in folders for path in Path(folder).rglob("*") if path.is_file()):
            content = path.read_bytes()
            names = self.found_in(content)
            if content.startswith(b"SQLite format 3\0"):
                # A long value may be cut in two by the end of a page.
                names |= self.found_in(rows_of(path))
            if names:
                found[str(path)] = names
        return found


def rows_of(path):
    """All values of all rows of a database, also those that are in its log."""
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
    """Keeps the command lines and environments of all processes that there are meanwhile; a context manager."""

    def __init__(self):
        self._seen = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()

    @property
    def texts(self):
        """Each command line with its environment, as bytes."""
        return {command + b"\n" + environment for command, environment in list(self._seen)}

    def _look(self):
        while not self._ended.wait(POLL_SECONDS):
            for folder in Path("/proc").glob("[0-9]*"):
                try:
                    self._seen.add(((folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()))
                except OSError:
                    continue
