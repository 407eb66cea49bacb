from datetime import datetime, timezone
from types import SimpleNamespace

import pytest

from localbatch.api import odata
from localbatch.errors import ServiceError

AT = datetime(2026, 5, 8, 8, 49, 37, tzinfo=timezone.utc)


def make_task(**changes):
    execution = {"started_at": AT, "ended_at": None, "exit_code": 3, "result": "failure"}
    task = {
        "id": "Task-1",
        "state": "completed",
        "state_at": AT,
        "created_at": AT,
        "execution": SimpleNamespace(**execution),
    }
    return SimpleNamespace(**task | changes)


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("state eq 'completed'", True),
        ("state ne 'completed'", False),
        ("state eq 'COMPLETED'", True),
        ("startswith(id,'task')", True),
        ("startswith(id, 'other')", False),
        ("executionInfo/exitCode gt 2 and executionInfo/exitCode le 3", True),
        ("executionInfo/exitCode eq -1", False),
        ("(state eq 'active' or state eq 'completed') and executionInfo/result eq 'failure'", True),
        ("state eq 'active' or state eq 'completed' and id eq 'x'", False),
        ("not (state eq 'active')", True),
        ("creationTime ge DateTime'2026-05-08T08:49:37Z'", True),
        ("creationTime lt datetime'2026-05-08T08:49:37.0000000Z'", False),
        ("stateTransitionTime eq DateTime'Fri, 08 May 2026 08:49:37 GMT'", True),
        ("stateTransitionTime gt '2026-05-08T08:00:00.1234567Z'", True),
        ("executionInfo/endTime lt DateTime'2030-01-01T00:00:00Z'", False),
    ],
)
def test_filters_mean_what_they_say(text, matches):
    assert odata.read_filter(text, odata.TASKS)(make_task()) is matches


def test_quotes_in_values_are_doubled():
    assert odata.read_filter("id eq 'it''s'", odata.TASKS)(make_task(id="it's"))


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "State eq 'active'",
        "state like 'active'",
        "commandLine eq 'x'",
        "executionInfo/exitCode eq 'x'",
        "startswith(executionInfo/exitCode,'1')",
        "creationTime gt 'yesterday'",
        "state eq 'active' and",
        "state eq 'active",
    ],
)
def test_unknown_filter_property_is_refused(text):
    with pytest.raises(ServiceError) as caught:
        odata.read_filter(text, odata.TASKS)
    assert (caught.value.status, caught.value.code) == (400, "InvalidQueryParameterValue")


def test_select_leaves_rest_out():
    known = ("id", "state", "url")
    assert odata.read_select("id, state", known)({"id": 1, "state": 2, "url": 3}) == {"id": 1, "state": 2}
    assert odata.read_select(None, known)({"id": 1}) == {"id": 1}


def test_what_cannot_be_selected_is_refused():
    for refused in (lambda: odata.read_select("id,size", ("id",)), lambda: odata.check_expand("nodes")):
        with pytest.raises(ServiceError) as caught:
            refused()
        assert caught.value.code == "InvalidQueryParameterValue"
    odata.check_expand("stats")
