"""Only printable characters and our own styles reach a terminal."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stderr, redirect_stdout

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_reports import counted, failed, run_report

from flows.cli.display import print_table, show_progress
from flows.console import ask, print_message, print_result
from tasks.progress import advance, notify
from tasks.text import printable, printable_lines

# What rich writes for the styles of the table: bold, red and the end of both.
OWN_STYLES = re.compile(r"\x1b\[(?:0|1|31)m")

texts = st.one_of(
    st.text(),
    st.lists(
        st.sampled_from(
            ["\x1b[31m", "\x1b]8;;x\x07", "\x9b2J", "\u202e", "[red]", "[/]", ":bomb:", "\r", "\n", "a", " "]
        )
    ).map("".join),
)


@pytest.fixture(params=["pipe", "terminal"], autouse=True)
def terminal(request, monkeypatch):
    """Run each test with a pipe, and with a stream that rich takes for a terminal."""
    if request.param == "terminal":
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm")


def printed(call, *arguments):
    output = io.StringIO()
    with redirect_stdout(output), redirect_stderr(output):
        call(*arguments)
    return output.getvalue()


def assert_harmless(output):
    text = OWN_STYLES.sub("", output)
    assert printable_lines(text) == text


@given(texts)
def test_messages_and_results_are_printed_literally(text):
    for call in (print_message, print_result):
        output = printed(call, text)
        assert_harmless(output)
        # rich replaces tabs with spaces.
        assert output.split() == printable_lines(text).split()


@given(texts)
def test_table_and_failures_are_harmless(text):
    report = run_report(
        counted(1, f"name{text}", top=((f"word{text}", 3),)),
        failed(2, f"bad{text}", f"message{text}", printed=f"log{text}\nlast line", node_id=f"node{text}"),
    )
    output = printed(print_table, report, f"folder{text}")
    assert_harmless(output)
    for part in (f"message{text}", f"node{text}", f"folder{text}"):
        assert printable(part) in output


def test_notes_and_questions_are_harmless():
    text = "\x1b[2J[red]\u202e:bomb:"

    def note():
        with show_progress():
            notify(f"note{text}")

    for call, *arguments in (
        (note,),
        (ask, f"question{text}", lambda: "y"),
    ):
        assert printable(text) in printed(call, *arguments)


def test_retried_flow_counts_from_zero_again():
    def attempts():
        with show_progress():
            for _ in range(2):
                advance("staged", total=1)
                advance("staged", done=1)

    output = printed(attempts)
    assert not re.search(r"2( of |/)1", output)
