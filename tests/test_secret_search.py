"""The search for secrets finds one wherever it is planted, so that finding none means something."""

from __future__ import annotations

import base64
import html
import json
import logging
import pickle
import sqlite3
import subprocess
import sys
import uuid
from contextlib import closing
from urllib.parse import quote

import pytest
from secret_search import Processes, Search
from tests_support import wait_until

SECRET = "ab/cd+SentinelOfThisTest0123456789/ef=="


@pytest.fixture
def search():
    return Search(secret=SECRET, other="NowhereToBeFound")


def percent_encoded(text):
    return quote(text, safe="")


def encoded_after(count):
    """In the midst of something, so that its letters are other ones."""
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
def test_a_secret_in_a_file_is_found_in_every_form(search, tmp_path, file, form):
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"before {form(SECRET)} after")
    assert search.found_below(tmp_path) == {str(path): {"secret"}}


def test_where_there_is_no_secret_none_is_found(search, tmp_path):
    (tmp_path / "a").write_text(SECRET[:12] + "\n" + SECRET[12:])
    assert search.found_below(tmp_path) == {}


@pytest.mark.parametrize("is_in_the_log", [True, False])
def test_a_secret_in_a_database_is_found_also_where_it_is_cut_in_two(search, tmp_path, is_in_the_log):
    path = tmp_path / "prefect.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(f"PRAGMA journal_mode = {'wal' if is_in_the_log else 'delete'}")
        database.execute("CREATE TABLE log (message TEXT)")
        # At each place in its pages.
        database.executemany("INSERT INTO log VALUES (?)", [("x" * 500 * n + SECRET,) for n in range(20)])
        assert "secret" in search.found_below(tmp_path)[str(path)]
        database.execute("DELETE FROM log")
        database.execute("INSERT INTO log VALUES (?)", ("x" * 4090 + SECRET,))
        assert "secret" in search.found_below(tmp_path)[str(path)]


@pytest.mark.parametrize("place", ["argument", "variable"])
def test_a_secret_in_a_process_is_found(search, place):
    wait = "import sys; print(1, flush=True); sys.stdin.read()"
    arguments, environment = ([SECRET], {}) if place == "argument" else ([], {"KEY": SECRET})
    with (
        Processes() as processes,
        subprocess.Popen(
            [sys.executable, "-c", wait, *arguments],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process,
    ):
        process.stdout.readline()
        wait_until(lambda: any(search.found_in(text) for text in processes.texts), "the process was seen")
        process.communicate()


@pytest.fixture
def server(tmp_path):
    """A Prefect server of its own, since what is planted stays."""
    from flows.services import PrefectServer  # noqa: PLC0415 - takes seconds

    with PrefectServer(tmp_path / "prefect") as started:
        started.wait()
        yield started


def test_a_secret_in_each_place_of_a_prefect_server_is_found(server, tmp_path):
    """In parameters, states, artifacts, logs, events, names and variables; each has a secret of its own."""
    from prefect import flow, get_client  # noqa: PLC0415 - takes seconds
    from prefect.client.schemas.actions import ArtifactCreate, LogCreate  # noqa: PLC0415
    from prefect.settings import PREFECT_API_URL, temporary_settings  # noqa: PLC0415
    from prefect.states import Failed  # noqa: PLC0415

    places = ("parameter", "name", "state", "artifact", "log", "variable")
    secrets = {place: f"Sentinel{place}{uuid.uuid4().hex}" for place in places}
    with temporary_settings({PREFECT_API_URL: server.api_url}), get_client(sync_client=True) as client:
        run = client.create_flow_run(
            flow(lambda key: key, name="planted"),
            parameters={"key": secrets["parameter"]},
            name=secrets["name"],
            state=Failed(message=f"no: {secrets['state']}"),
        )
        client.create_artifact(ArtifactCreate(key="a", type="markdown", data=secrets["artifact"], flow_run_id=run.id))
        entry = LogCreate(
            name="urllib3",
            level=logging.DEBUG,
            message=f"GET {secrets['log']}",
            timestamp=run.created,
            flow_run_id=run.id,
        )
        client.create_logs([entry])
        client._client.post("/variables/", json={"name": "planted", "value": secrets["variable"]}).raise_for_status()
        # The server writes some of it down later.
        search = Search(**secrets)
        wait_until(lambda: all_found(search, tmp_path) == set(places), "all are in the database")


def all_found(search, folder):
    return {name for names in search.found_below(folder).values() for name in names}
