"""The Markdown of a run's artifacts: its content, bounded size and escaping."""

from __future__ import annotations

from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_support import Shown
from run_reports import HOSTILE, counted, entry_of, failed, hostile_report, run_report, usage

from flows.cli.display import print_table
from tasks.model.cleanup import Cleanup
from tasks.model.verdict import Category, FileError
from tasks.report.comparison import compare
from tasks.report.manifest import Manifest
from tasks.report.markdown import (
    block,
    code,
    duration,
    escape_markdown,
    failures,
    failures_summary,
    key_figures,
    notes,
    results,
    results_summary,
    summary,
    waiting_sentence,
)
from tasks.report.model import Price
from tasks.steps.cleanup import render_cleanup
from tasks.steps.report import final_state
from tasks.text import printable, printable_lines, shorten


def figure(report, name):
    return next((text, more) for found, text, more in key_figures(report) if found == name)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (9.94, "9.9 s"), (59.4, "59 s"), (60, "1 min 00 s"), (3599, "59 min 59 s"), (7290, "2 h 01 min")],
)
def test_durations_use_readable_units(seconds, text):
    assert duration(seconds) == text


def test_headline_omits_zero_counts():
    assert run_report(counted(1)).headline == "1 file: 1 counted"
    assert run_report(counted(1), counted(2, unchanged=True)).headline == "2 files: 1 counted, 1 unchanged"
    assert run_report(*(failed(n) for n in range(1200))).headline == "1,200 files: 1,200 failed"


def test_summary_lists_results_and_usage():
    found = Shown(summary(run_report(counted(1), counted(2, unchanged=True), failed(3), usage=usage())))
    for row in (
        ["Batch tasks completed", "7 (2 retried, 1 started again on another node)"],
        ["Node-minutes", "120.0"],
        ["Cost of the nodes", "1.00 USD (estimated)"],
        ["plan", "1", "0.0 s", "2.0 s"],
    ):
        assert row in found.rows
    for text in (
        "3 files: 1 counted, 1 unchanged, 1 failed\n",
        "at 0.5 USD per hour (set for this run)",
        "For 1 min 10 s of that time (70%), no Batch task ran",
        "/data/results on worker1",
        "file3.txt: The program ended with exit code 137",
    ):
        assert text in found.text


def test_summary_has_cost_of_terminal():
    report = run_report(counted(1), usage=usage(), price=Price(usd_per_node_hour=0.5, source="a list", is_paid=False))
    cost = "no cost (local; Azure would charge about 1.00 USD)"
    assert ["Cost of the nodes", cost] in Shown(summary(report)).rows
    with redirect_stdout(StringIO()) as printed:
        print_table(report, "results")
    assert f"Cost of the nodes: {cost}" in printed.getvalue()


@pytest.mark.parametrize("page", ["/data/a`b/report.html", "https://a.blob.core.windows.net/out/x%20y/report.html"])
def test_summary_leads_to_page(page):
    text = summary(replace(run_report(counted(1)), page=page))
    assert ("report.html" if "://" in page else page) in Shown(text).text
    assert (f"](<{page}>)" in text) == ("://" in page)


def test_summary_compares_with_previous_run():
    entries = [entry_of(number) for number in range(3)]
    comparison = compare(
        Manifest(entries=(*entries[:2],)), Manifest(entries=(replace(entries[0], sha256="f"), entries[2]))
    )
    found = Shown(summary(replace(run_report(counted(1)), comparison=comparison)))
    assert ["Against the previous run", "1 new, 1 changed, 1 missing; 0 with the same content"] in found.rows


def test_unchanged_run_does_not_mention_azure():
    report = run_report(counted(1, unchanged=True))
    assert [name for name, _, _ in key_figures(report)] == [
        "Files counted now",
        "Files unchanged",
        "Files failed",
        "Words in all files",
        "Time until the report",
        "Cost of the nodes",
    ]
    assert figure(report, "Cost of the nodes") == ("no cost", "no node was needed")
    assert notes(report) == []
    assert waiting_sentence(report) == ""


@pytest.mark.parametrize(
    ("price", "changes", "cost", "note"),
    [
        (
            Price(usd_per_node_hour=None, source="standard_x", is_paid=True),
            {},
            ("unknown", ""),
            "The price of standard_x is unknown",
        ),
        (
            Price(usd_per_node_hour=0.5, source="a list", is_paid=False),
            {},
            ("no cost (local)", "Azure would charge about 1.00 USD"),
            "What Azure would charge covers only nodes, at 0.5 USD per hour",
        ),
        (
            Price(usd_per_node_hour=None, source="standard_x", is_paid=False),
            {},
            ("no cost (local)", ""),
            "The price of standard_x is unknown",
        ),
        (
            Price(usd_per_node_hour=0.01, source="a list", is_paid=True),
            {},
            ("0.0200 USD", "estimated"),
            "at 0.01 USD per hour (a list)",
        ),
        (
            Price(usd_per_node_hour=0.5, source="a list", is_paid=True),
            {"spot_node_seconds": 3600.0},
            ("1.05 to 1.50 USD", "estimated"),
            "The price of spot nodes varies between 10% of that and all of it.",
        ),
        (
            Price(usd_per_node_hour=0.5, source="a list", is_paid=True),
            {"node_seconds": None, "spot_node_seconds": None},
            ("unknown", ""),
            "The run used an existing pool",
        ),
    ],
)
def test_cost_names_price_and_exclusions(price, changes, cost, note):
    report = run_report(counted(1), usage=usage(**changes), price=price)
    assert figure(report, "Cost of the nodes") == cost
    assert note in " ".join(notes(report))


def test_results_table_is_bounded_and_names_omissions():
    top = tuple((f"word{n}", 1000 - n) for n in range(1000))
    report = run_report(*(counted(n, top=top) for n in range(600)))
    document = results(report)
    assert len(document) < 300_000
    assert len(Shown(document).rows) == 1 + 500
    assert (
        results_summary(report) == "The results of the first 500 of 600 files. The output folder contains all results."
    )
    assert results_summary(run_report(counted(1))) == "The results of 1 file."
    assert results_summary(run_report(counted(1), failed(2))) == "The results of 2 files. Failed files are first."


def test_failed_files_are_first():
    report = run_report(counted(1), failed(2, "bad.txt", "bad.txt is not UTF-8 text"))
    assert Shown(results(report)).rows[1:] == [
        ["bad.txt", "failed: is not UTF-8 text", "", "", ""],
        ["file1.txt", "counted", "1,000", "100", "the 3, of 2"],
    ]
    shown = Shown(summary(report)).text
    assert shown.index("bad.txt is not UTF-8 text") < shown.index("Files counted now")


def test_failure_details_are_bounded_and_count_all():
    report = run_report(*(failed(n, "n" * 200 + str(n), printed="x" * 4000) for n in range(5000)))
    text = failures(report)
    assert len(text) < 500_000
    assert text.startswith("# 5,000 of 5,000 files failed\n")
    assert "| program | 5,000 | The program failed on the node, or its outputs are invalid. |" in text
    assert "4,475 more files are not listed here" in text
    assert len(summary(report)) < 10_000
    assert failures_summary(report).endswith("- and 4,990 more")


def test_corpus_that_failed_is_described_alone():
    error = FileError(category=Category.PROGRAM, message="The program ended with exit code 3", stderr="no space left")
    report = run_report(counted(1), counted(2), corpus=error)
    assert (report.is_failed, report.count("failed")) == (True, 0)
    shown = Shown(text := failures(report))
    assert text.startswith("# The corpus could not be merged\n")
    assert "| category |" not in text
    assert "SHA-256" not in text
    assert "no space left" in text
    assert shown.rows == []
    assert "exit code 3" in summary(report)
    message = "corpus: The program ended with exit code 3. The corpus could not be merged."
    assert final_state(report).message == message


def test_corpus_is_described_before_failed_files():
    error = FileError(category=Category.NODE, message="Its node was lost")
    report = run_report(counted(1), failed(2, "bad.txt"), corpus=error)
    text = failures(report)
    assert text.startswith("# 1 of 2 files failed\n")
    assert text.index("## `corpus`") < text.index("## `bad.txt`")
    assert failures_summary(report).count("- ") == 2


def test_failure_details_have_reason_and_repeat_command():
    text = failures(
        run_report(failed(1, "bad.txt", "bad.txt is not UTF-8 text", printed="last words", category=Category.INPUT))
    )
    for part in ("## `bad.txt`", "`input`", "`137`", "`2 times`", "`tvm1`", "last words", "-- '/data/bad.txt'"):
        assert part in text


def reason_of(message):
    [failure] = run_report(failed(1, "a.txt", message)).describe_failures()
    return failure.reason


def test_reason_names_its_file_once():
    assert reason_of("a.txt has a NUL byte") == "a.txt has a NUL byte"
    assert reason_of("The node was lost") == "a.txt: The node was lost"


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_not_rendered_as_markdown(text):
    assert_shown_as_text(text)


@given(st.one_of(st.text(), st.text("!-:@[]`{}~_*<>()/&#;|\\ \n\x1b1aw")))
def test_any_text_is_shown_as_text(text):
    assert_shown_as_text(text)


def assert_shown_as_text(text):
    for markdown, elements in (
        (f"- {escape_markdown(text)}", {"ul", "li"}),
        (f"- {code(text)}", {"ul", "li", "code"}),
        (f"| {escape_markdown(text)} |\n|---|", {"table", "thead", "tr", "th"}),
    ):
        found = Shown(markdown)
        assert found.elements == elements
        assert found.text.strip() == printable(text).strip()
    found = Shown(block(text))
    assert found.elements == {"pre", "code"}
    assert found.text.rstrip("\n") == printable_lines(text).rstrip("\n")


def test_results_table_shows_names_and_words():
    found = Shown(results(run_report(counted(1, "a|*b*.txt", top=(("q![](http://127.0.0.1:1/p)q", 3),)))))
    assert found.rows == [
        ["file", "status", "words", "distinct", "top words"],
        ["a|*b*.txt", "counted", "1,000", "100", "q![](http://127.0.0.1:1/p)q 3"],
    ]
    assert not found.elements & {"img", "a", "em"}


def test_pages_contain_no_foreign_markup():
    report = hostile_report()
    for page in (summary(report), results(report), failures(report), failures_summary(report), results_summary(report)):
        assert Shown(page).elements <= set(
            "h1 h2 table thead tbody tr th td p ul li code pre".split()  # noqa: SIM905
        )
        assert "\x1b" not in page


@pytest.mark.parametrize("text", HOSTILE)
def test_cleanup_record_contains_no_foreign_markup(text):
    found = Shown(render_cleanup(Cleanup(deleted=("job topn-1",), remaining={"pool topn-1": text})))
    assert found.elements == {"p", "ul", "li", "code"}
    assert f"pool topn-1: {printable(text)}" in found.text


def test_long_names_are_cut_in_middle():
    assert shorten("a" * 100 + "end.txt", 30) == "a" * 10 + "…" + "a" * 12 + "end.txt"
    assert shorten("short") == "short"
