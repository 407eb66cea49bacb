"""The search finds planted secrets, so an empty result is evidence that there are none."""

from __future__ import annotations

import base64
import html
import json
import pickle
import sqlite3
from contextlib import closing
from urllib.parse import quote

import pytest
from secret_search import SECRET, Search


@pytest.fixture
def search():
    return Search(secret=SECRET, other="NowhereToBeFound")


def percent_encoded(text):
    return quote(text, safe="")


def encoded_after(count):
    """Return a function that encodes a text in Base64 after `count` bytes, which changes its letters."""
    return lambda text: base64.b64encode(b"x" * count + text.encode() + b"yz").decode()


@pytest.mark.parametrize(
    "form",
    [
        str,
        percent_encoded,
        lambda text: percent_encoded(percent_encoded(text)),
        lambda text: percent_encoded(text).lower().replace(text.lower(), text) + text,
        json.dumps,
        lambda text: json.dumps(json.dumps({"url": text})).replace("/", "\\/"),
        html.escape,
        encoded_after(0),
        encoded_after(1),
        encoded_after(2),
        lambda text: base64.urlsafe_b64encode(pickle.dumps({"key": text})).decode(),
        lambda text: text.encode().hex(),
        repr,
    ],
)
@pytest.mark.parametrize(
    "file", ["results/a_OUTPUT.json", "report.html", "storage/0123", ".env", "nodes/n/wd/stdout.txt"]
)
def test_encoded_secret_in_file_is_found(search, tmp_path, file, form):
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"before {form(SECRET)} after")
    assert search.found_below(tmp_path) == {str(path): {"secret"}}


def test_harmless_file_yields_no_secret(search, tmp_path):
    (tmp_path / "a").write_text(SECRET[:12] + "\n" + SECRET[12:])
    assert search.found_below(tmp_path) == {}


@pytest.mark.parametrize("is_in_the_log", [True, False])
def test_secret_split_across_database_pages_is_found(search, tmp_path, is_in_the_log):
    path = tmp_path / "prefect.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(f"PRAGMA journal_mode = {'wal' if is_in_the_log else 'delete'}")
        database.execute("CREATE TABLE log (message TEXT)")
        # Rows of many lengths place the secret at different positions in the database pages.
        database.executemany("INSERT INTO log VALUES (?)", [("x" * 500 * n + SECRET,) for n in range(20)])
        assert "secret" in search.found_below(tmp_path)[str(path)]
        database.execute("DELETE FROM log")
        database.execute("INSERT INTO log VALUES (?)", ("x" * 4090 + SECRET,))
        assert "secret" in search.found_below(tmp_path)[str(path)]
