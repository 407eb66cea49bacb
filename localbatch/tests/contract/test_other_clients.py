"""Every served operation with the other official clients: the asynchronous one and the previous SDK."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from localbatch.api.routes import ROUTES

HERE = Path(__file__).parent
TRACK1 = Path(sys.prefix) / "clients" / "track1"
# The account has no applications, and these pools have no nodes that can be reimaged.
SERVED = {route.operation for route in ROUTES if route.handler} - {"get_application", "reimage_node"}
LATER_THAN_TRACK1 = {"deallocate_node", "start_node"}


@pytest.mark.parametrize(
    ("script", "packages", "lacking"),
    [
        ("async_client.py", None, set()),
        pytest.param(
            "track1_client.py",
            TRACK1,
            LATER_THAN_TRACK1,
            marks=pytest.mark.skipif(not TRACK1.is_dir(), reason="the track 1 SDK is not installed; run `make tools`"),
        ),
    ],
)
def test_other_clients_see_the_same_service(
    local_azure,
    azure_faults,
    name,
    script,
    packages,
    lacking,
):
    azure_faults.add("allocation_fails", pool=f"{name}-stalled", stalls=True)
    local_azure.batch.requests.clear()
    command = [sys.executable, str(HERE / script), local_azure.endpoint, local_azure.account, local_azure.key, name]
    environment = os.environ | ({"PYTHONPATH": str(packages)} if packages else {})
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    asked_for = {request.operation for request in local_azure.batch.requests if 200 <= request.status < 300}
    assert asked_for == SERVED - lacking
