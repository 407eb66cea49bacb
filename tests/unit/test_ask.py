"""`topn run --ask`: the questions of the tutorial, and what the answers keep."""

from __future__ import annotations

import pytest

from flows.cli.run import confirm_keep
from flows.console import ask
from tasks.model.run import Keep


@pytest.mark.parametrize(
    ("answer", "is_yes"), [("y", True), ("yes", True), ("", True), ("N", False), (" no ", False), ("nothing", True)]
)
def test_any_answer_but_no_means_yes(answer, is_yes):
    assert ask("Delete the job?", lambda: answer) is is_yes


@pytest.mark.parametrize(
    ("options", "stdin", "keep"),
    [
        ({}, "y\ny\n", Keep()),
        ({}, "n\ny\n", Keep(job=True)),
        ({}, "y\nn\n", Keep(pool=True)),
        ({}, "", Keep()),
        ({"job": True}, "y\n", Keep(job=True)),
        ({"pool": True, "containers": True}, "y\n", Keep(pool=True, containers=True)),
    ],
)
def test_answers_and_options_decide_what_to_keep(topn, options, stdin, keep):
    given = Keep(**{"containers": False, "job": False, "pool": False} | options)
    kept = []
    topn.call(lambda: kept.append(confirm_keep(given)) or 0, stdin=stdin)
    assert kept == [keep]
