"""`topn run --ask`: the questions of the tutorial, and what the answers keep."""

from __future__ import annotations

import argparse

import pytest

from flows.cli.run import _confirm_and_delete
from flows.console import ask
from tasks.model.run import Keep
from tasks.steps import cleanup


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
        ({"keep_job": True}, "y\n", Keep(job=True)),
        ({"keep_pool": True, "keep_containers": True}, "y\n", Keep(pool=True, containers=True)),
    ],
)
def test_answers_and_options_decide_what_to_keep(topn, monkeypatch, options, stdin, keep):
    calls = []
    monkeypatch.setattr(cleanup, "clean_up_run", lambda flow_run_id, keep: calls.append((flow_run_id, keep)) or {})
    options = {"keep_containers": False, "keep_job": False, "keep_pool": False} | options

    topn.call(_confirm_and_delete, "the run", argparse.Namespace(**options), stdin=stdin)

    assert calls == [("the run", keep)]
