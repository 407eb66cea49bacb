"""Node agents without a server."""

from datetime import datetime, timezone

import pytest

from localbatch.account.records import Node, StartRun
from localbatch.nodes.agent import NodeAgent
from localbatch.nodes.transfer import StorageClient
from localbatch.processes.launcher import Launcher
from localbatch.testing import wait_until

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
NODE = Node(id="n", pool_id="p", dedicated=True, slots=1, allocated_at=NOW, state="idle", state_at=NOW)


@pytest.fixture
def reports():
    return []


@pytest.fixture
def agent(tmp_path, reports):
    launcher = Launcher()
    options = {"launcher": launcher, "storage": StorageClient(lambda: NOW), "report": reports.append}
    agent = NodeAgent(tmp_path / "nodes", account=("a", "http://a"), **options)
    yield agent
    agent.stop()
    launcher.close()


def make_run(**changes):
    fields = {
        "run_id": 1,
        "node": NODE,
        "directory": "workitems/j/job-1/t",
        "preparation_directory": None,
        "command_line": "true",
        "environment": {},
        "resource_files": (),
        "output_files": (),
    }
    return StartRun(**fields | changes)


def test_ended_run_is_reported(agent, reports):
    agent.perform([make_run()])
    (report,) = wait_until(lambda: reports)
    assert (report.run_id, report.exit_code, report.failure) == (1, 0, None)


def test_failed_start_is_reported(agent, reports):
    agent.perform([make_run(resource_files=[{"httpUrl": 5, "filePath": "x"}])])
    (report,) = wait_until(lambda: reports)
    assert (report.exit_code, report.failure["code"], report.failure["category"]) == (None, "Unknown", "servererror")
