"""The final state of a run, and its errors."""

from __future__ import annotations

import pickle

import pytest
from run_reports import failed, run_report

from tasks.errors import NotFoundError, OutputError, ServiceError, TopnError
from tasks.report.model import FilesFailedError
from tasks.steps.report import final_state


def test_final_state_names_failures_in_bounded_printable_text():
    message = final_state(run_report(*(failed(n, f"{n}\x1b[2J", "\u202e" * 5000) for n in range(20)))).message
    assert message.startswith("0\\x1b[2J: \\u202e")
    assert message.endswith("; and 17 more. 20 of 20 files failed.")
    assert message.isprintable()
    assert len(message) < 4000


@pytest.mark.parametrize(
    "error",
    [
        TopnError("a\x1b[2J\nb"),
        OutputError("a\x1b[2J\nb"),
        NotFoundError("a\x1b[2J\nb", service="Batch", operation="get pool p"),
        ServiceError("a\x1b[2J\nb", service="Batch", operation="get pool p"),
        FilesFailedError("a\x1b[2J\nb", run_report(failed(1))),
    ],
)
def test_error_message_is_one_printable_line(error):
    assert str(error) == "a\\x1b[2J\\nb"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
