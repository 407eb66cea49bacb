from datetime import datetime, timezone

import pytest

from localbatch.account import states
from localbatch.account.records import Stated

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
TABLES = states.TABLES
CASES = [(name, state, event) for name, table in TABLES.items() for state in table for event in table[state]]


@pytest.mark.parametrize(("name", "state", "event"), CASES)
def test_transitions_lead_to_known_states(name, state, event):
    assert states.advance(TABLES[name], state, event) in TABLES[name]


@pytest.mark.parametrize("name", TABLES)
def test_unlisted_event_is_refused(name):
    table = TABLES[name]
    events = {event for row in table.values() for event in row} | {"unheard of"}
    for state in table:
        for event in events - set(table[state]):
            record = Stated(state=state, state_at=NOW)
            with pytest.raises(states.IllegalTransition, match="cannot happen"):
                record.move(table, event, NOW)
            assert record == Stated(state=state, state_at=NOW)


@pytest.mark.parametrize(
    ("table", "start", "events", "end"),
    [
        (states.NODE, "creating", ["booted", "start_task_started", "ready", "occupied", "drained"], "idle"),
        (states.NODE, "idle", ["reboot", "booted", "start_task_started", "start_task_failed", "leave"], "leavingpool"),
        (states.JOB, "active", ["disable", "disabled", "enable", "enabled", "terminate", "terminated"], "completed"),
        (states.TASK, "active", ["prepare", "start", "retry", "start", "requeue", "start", "end"], "completed"),
        (states.TASK, "completed", ["reactivate", "end"], "completed"),
        (states.ALLOCATION, "resizing", ["stop", "stopped", "resize", "allocated"], "steady"),
    ],
)
def test_record_moves_along_its_table(table, start, events, end):
    state = start
    for event in events:
        state = states.advance(table, state, event)
    assert state == end


def test_move_remembers_state_before():
    record = Stated(state="active", state_at=NOW)
    record.move(states.JOB, "disable", NOW)
    assert (record.state, record.previous_state) == ("disabling", "active")


@pytest.mark.parametrize("event", ["preempt", "lose", "break"])
@pytest.mark.parametrize("state", ["creating", "starting", "idle", "running", "offline", "rebooting"])
def test_any_node_can_be_lost(state, event):
    lost = states.advance(states.NODE, state, event)
    assert states.advance(states.NODE, lost, "recover") == "creating"
