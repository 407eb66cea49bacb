"""Errors of single files in a step."""

from __future__ import annotations

import logging

import pytest
from run_reports import input_file

from tasks.errors import ServiceError
from tasks.model.verdict import Category
from tasks.steps import step
from tasks.steps.step import MAX_UNANSWERED, PartialFailures

FILES = [input_file(number) for number in range(MAX_UNANSWERED + 2)]


def failing(error):
    def action():
        raise error

    return action


def refused(*, transient=False):
    return ServiceError("Storage could not upload a: No [X].", service="Storage", operation="x", transient=transient)


def test_failure_names_reason_and_spares_others():
    failures = PartialFailures("staged", Category.RESOURCE_FILE)
    assert failures.attempt([FILES[0]], failing(refused())) is None
    assert failures.attempt([FILES[1]], lambda: 1) == 1
    [(key, error)] = failures.errors.items()
    assert (key, error.category) == (FILES[0].content_key, Category.RESOURCE_FILE)
    assert error.message == "It could not be staged: Storage could not upload a: No [X]"


def test_full_disk_is_named():
    failures = PartialFailures("staged", Category.RESOURCE_FILE)
    failures.attempt(FILES[:1], failing(OSError(28, "No space left on device")))
    assert failures.errors[FILES[0].content_key].message == "It could not be staged: No space left on device"


def test_unexpected_error_has_traceback_in_log(caplog):
    failures = PartialFailures("collected", Category.UPLOAD)
    with caplog.at_level(logging.ERROR):
        failures.attempt(FILES[:1], failing(KeyError("x")))
    assert failures.errors[FILES[0].content_key].message.endswith("unexpected KeyError('x'), see the log of the run")
    assert "Traceback" in caplog.text
    assert "in failing" in caplog.text or "in action" in caplog.text


def test_transient_error_ends_step_while_it_is_retried(monkeypatch):
    monkeypatch.setattr(step, "is_last_attempt", lambda: False)
    with pytest.raises(ServiceError):
        PartialFailures("staged", Category.NODE).attempt(FILES[:1], failing(refused(transient=True)))


def test_silent_service_is_not_tried_per_file():
    failures = PartialFailures("staged", Category.NODE)
    tried = []

    def upload():
        tried.append(1)
        raise refused(transient=True)

    for file in FILES:
        failures.attempt([file], upload)
    assert len(tried) == MAX_UNANSWERED
    assert len(failures.errors) == len(FILES)
