"""The generated parts of docs/local-batch.md are up to date, and say of everything how it was verified."""

import ast
import re
from pathlib import Path

import reference_page
from azure.batch import BatchClient
from replay import FOLDER

import localbatch
from localbatch import errors
from localbatch.account import states
from localbatch.api.routes import ROUTES

PAGE = Path(__file__).parents[2] / "docs" / "local-batch.md"
SOURCE = Path(localbatch.__file__).parent

# Methods of the client that are not operations of the REST API.
HELPERS = {"close", "create_tasks", "send_request"}

# The folders that produce error codes which are not those of a response.
FOLDERS = ("rules", "nodes", "faults")
# Names in these folders that look like error codes: functions and variables of formulas, reasons of the end of a job, keys
# of details, and words of the storage service.
NO_CODES = {
    *(
        "ActiveTasks",
        "CurrentDedicatedNodes",
        "CurrentLowPriorityNodes",
        "FailedTasks",
        "GetSample",
        "GetSamplePercent",
    ),
    *("GetSamplePeriod", "HistoryBeginTime", "PendingTasks", "PreemptedNodeCount", "RunningTasks", "SampleNodeCount"),
    *("SucceededTasks", "TargetDedicatedNodes", "TargetLowPriorityNodes", "TaskSlotsPerNode", "UsableNodeCount"),
    *("AllTasksComplete", "MaxWallClockTimeExpiry", "TaskFailed", "TerminateJobSchedule"),
    *("AdditionalErrorCode", "BadRequest", "BlockBlob", "HttpStatus", "JobConstraints", "NextMarker"),
    *("PoolSpec", "TaskSpec"),
}


def rows(column):
    """Return the cells of a column of all tables of the page."""
    return {cells[column].strip() for line in PAGE.read_text().splitlines() if len(cells := line.split("|")) > column}


def test_page_is_up_to_date():
    page = PAGE.read_text()
    command = "python localbatch/tests/reference_page.py docs/local-batch.md localbatch/tests/transcripts"
    assert page == reference_page.generate(page, FOLDER), f"run: {command}"


def test_page_has_all_operations_and_states():
    page = PAGE.read_text()
    assert all(f"| {route.operation} |" in page for route in ROUTES)
    for table in states.TABLES.values():
        for state, events in table.items():
            assert all(f"{state} --> {target}" in page for target in events.values())


def test_page_has_all_operations_of_the_client():
    methods = {name.removeprefix("begin_") for name in dir(BatchClient) if not name.startswith("_")}
    assert methods - HELPERS - rows(1) == set()


def test_page_has_all_error_codes():
    codes = {code for _, code, _ in errors.CODES} | {
        node.value
        for folder in FOLDERS
        for path in (SOURCE / folder).glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and re.fullmatch("(?:[A-Z]+[a-z]+){2,}", str(node.value))
    }
    on_page = " ".join(rows(2))
    # Some codes are made of a prefix and a suffix.
    assert {code for code in codes - NO_CODES if code not in on_page} == set()


def test_removed_transcript_removes_its_claims(tmp_path):
    (tmp_path / "one.json").write_bytes((FOLDER / "python-stop-resize.json").read_bytes())
    verification = reference_page.Verification(tmp_path)
    of = {route.operation: verification.of_operation(route) for route in ROUTES}
    assert of["stop_pool_resize"].startswith("compared with [azure-batch")
    assert of["create_pool"] == "from the documents only"
    assert of["get_node_extension"] == "not served (501)"
    assert verification.of_code("ResizeStopped").startswith("compared with [azure-batch")
    assert verification.of_code("PoolExists", 409) == "from the documents only"


def test_every_part_has_its_markers():
    page = PAGE.read_text()
    for name in reference_page.PARTS:
        assert page.count(f"<!-- {name}: generated -->\n") == page.count(f"\n<!-- end of {name} -->\n") == 1
    assert page.endswith(reference_page.generate(page, FOLDER)[-100:])
