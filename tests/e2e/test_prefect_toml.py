"""The `prefect.toml` of `make up` never mixes its server with a server of the user."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from flows.servers.prefect_toml import PREFECT_TOML, published_in_prefect_toml

UP = {"PREFECT_API_URL": "http://127.0.0.1:4200/api", "PREFECT_API_AUTH_STRING": "topn:of-make-up"}
OWN = {"PREFECT_API_URL": "http://127.0.0.1:1/api", "PREFECT_API_AUTH_STRING": "mine:of-mine"}
OWN_OPEN = {"PREFECT_API_URL": "http://127.0.0.1:1/api"}

# Prints the URL and the password that a `topn` command uses.
SHOW = """
import json
from flows.servers.connect import prefect_api_url, use_make_up_servers
from tasks.azure.settings import state_folder
use_make_up_servers(state_folder())
url = prefect_api_url()
from prefect.settings import PREFECT_API_AUTH_STRING
print(json.dumps([url, url and PREFECT_API_AUTH_STRING.value()]))
"""


def used_server(home, *, environment=(), profile=()):
    """Return the URL and the password that `topn` uses in the current folder."""
    if profile:
        (home / ".prefect").mkdir(parents=True)
        lines = "".join(f'{name} = "{value}"\n' for name, value in profile.items())
        (home / ".prefect" / "profiles.toml").write_text(f'active = "mine"\n\n[profiles.mine]\n{lines}')
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_API_")}
    variables = {**inherited, "HOME": str(home), "TOPN_STATE": str(home / "state"), **dict(environment)}
    done = subprocess.run([sys.executable, "-c", SHOW], env=variables, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("environment", "profile", "used"),
    [
        (OWN, {}, OWN),
        (OWN_OPEN, {}, OWN_OPEN),
        ({}, OWN, OWN),
        ({}, OWN_OPEN, OWN_OPEN),
        (OWN_OPEN, OWN, OWN),
        (UP, OWN, UP),
    ],
    ids=[
        "in the environment",
        "in the environment without password",
        "in a profile",
        "in a profile without password",
        "in both",
        "of `make up` in the environment",
    ],
)
def test_configured_server_gets_its_own_password(tmp_path, environment, profile, used):
    with published_in_prefect_toml(UP):
        url, password = used_server(tmp_path, environment=environment, profile=profile)
    assert (url, password or None) == (used["PREFECT_API_URL"], used.get("PREFECT_API_AUTH_STRING"))


def test_file_of_killed_server_is_ignored(tmp_path):
    with published_in_prefect_toml(UP):
        left_behind = PREFECT_TOML.read_text()
    PREFECT_TOML.write_text(left_behind)
    assert used_server(tmp_path) == [None, None]
    assert not PREFECT_TOML.exists()
