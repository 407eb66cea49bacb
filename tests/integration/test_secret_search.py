"""The search finds secrets in processes and in everything that a Prefect server stores."""

from __future__ import annotations

import logging
import subprocess
import sys
import uuid

import pytest
from secret_search import SECRET, Processes, Search
from tests_support import wait_until


@pytest.mark.parametrize("place", ["argument", "variable"])
def test_secret_in_process_is_found(place):
    search = Search(secret=SECRET)
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


def test_secrets_are_found_everywhere_in_prefect_server(prefect_api, tmp_path_factory):
    """Parameters, names, states, artifacts, logs and variables each have their own secret."""
    from prefect import flow, get_client  # noqa: PLC0415 - takes seconds
    from prefect.client.schemas.actions import ArtifactCreate, LogCreate  # noqa: PLC0415
    from prefect.settings import PREFECT_API_URL, temporary_settings  # noqa: PLC0415
    from prefect.states import Failed  # noqa: PLC0415

    places = ("parameter", "name", "state", "artifact", "log", "variable")
    secrets = {place: f"Sentinel{place}{uuid.uuid4().hex}" for place in places}
    with temporary_settings({PREFECT_API_URL: prefect_api}), get_client(sync_client=True) as client:
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
        variable = {"name": f"planted_{uuid.uuid4().hex}", "value": secrets["variable"]}
        client._client.post("/variables/", json=variable).raise_for_status()
        # The server writes some of them with a delay.
        search = Search(**secrets)
        folders = list(tmp_path_factory.getbasetemp().glob("prefect[0-9]*"))
        wait_until(lambda: all_found(search, folders) == set(places), "all are in the database")


def all_found(search, folders):
    return {name for names in search.found_below(*folders).values() for name in names}
