"""The HTML report of a run: complete, self-contained, and safe with hostile names and words."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import fields, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from run_reports import HOSTILE, corpus_of, counted, failed, hostile_report, run_report, usage

from tasks.model.verdict import Category, FileError
from tasks.report.charts import time_picture
from tasks.report.folders import LocalFolder
from tasks.report.html import MAX_DETAILS, MAX_ROWS, render, write_page
from tasks.text import printable, printable_lines
from tasks.workload.drawing import DARK_COLOURS
from tasks.workload.word_counts import WordCountWorkload


class Page(HTMLParser):
    """A parsed page: its elements with their attributes, and its text."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for found, attributes in self.elements if found == tag]


@pytest.fixture
def page(tmp_path):
    return lambda report: Page(render(report, LocalFolder(tmp_path)))


def test_page_describes_run(page):
    files = [counted(1), counted(2, unchanged=True), failed(3, "bad.txt", printed="last words")]
    corpus = corpus_of((("the", 1006), ("of", 4)), failed=("bad.txt",), before=(("the", 1010),))
    found = page(run_report(*files, usage=usage(), corpus=corpus))
    for part in (
        "3 files: 1 counted, 1 unchanged, 1 failed",
        "Sunday, 22 November 2026, 02:00 UTC",
        "1.00 USD",
        "at 0.5 USD per hour (set for this run)",
        "The program ended with exit code 137",
        "last words",
        "python -m task_script -- '/data/bad.txt'",
        "For 1 min 10 s of that time (70%), no Batch task ran",
        "file2.txt",
        "no Batch task runs",
        "1,000 words, 100 of them distinct, in 2 files: the 1,006, of 4",
        "Exact counts of all words of 2 files.",
        "-4",
        "new",
    ):
        assert part in found.text
    assert len(found.all("svg")) == 2


def test_page_is_self_contained_and_has_no_scripts(page):
    found = page(hostile_report())
    assert {tag for tag, _ in found.elements} & {"script", "img", "link", "iframe", "object", "base", "form"} == set()
    for tag, attributes in found.elements:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href", "xlink:href", "data", "action"):
            if name in attributes:
                assert not re.match(r"[a-z]+:|//", attributes[name]), attributes
    [policy] = [meta["content"] for meta in found.all("meta") if meta.get("http-equiv")]
    assert policy.startswith("default-src 'none'")


def test_hostile_texts_are_shown_literally(page):
    texts = HOSTILE[:-1]
    rows = [counted(number, text, top=((text, 3),)) for number, text in enumerate(texts)]
    failures = [failed(len(rows) + number, text, printed=text) for number, text in enumerate(texts)]
    found = page(run_report(*rows, *failures, usage=usage(), corpus=corpus_of([(text, 3) for text in texts])))
    for text in texts:
        # As a name, as a word, as the name of a failed file, as its program's output, and in the corpus.
        assert found.text.count(printable(text.splitlines()[-1])[:30]) >= 5, text


class HostileWorkload(WordCountWorkload):
    """A workload whose figures and columns contain control characters."""

    def figures(self, results):
        return [("figure\x1b[2J", "value\u202e")]

    def columns(self, file, result):
        return {"column\x9b": "cell\x07", "words": [("word\u2066", "3")]}


def test_page_contains_only_printable_text(page):
    report = hostile_report()
    workload = HostileWorkload(
        **{field.name: getattr(report.workload, field.name) for field in fields(report.workload)}
    )
    found = page(replace(report, workload=workload, run_name="run\x1b"))
    assert printable_lines(found.text) == found.text
    for text in ("figure\\x1b[2J", "value\\u202e", "column\\x9b", "cell\\x07", "word\\u2066", "run\\x1b"):
        assert text in found.text


def test_links_lead_to_outputs(tmp_path):
    file = counted(1, "javascript:alert(1) #?%41.txt")
    report = run_report(file, output_folder=str(tmp_path))
    [link] = Page(render(report, LocalFolder(tmp_path))).all("a")
    assert link["href"] == "javascript%3Aalert%281%29%20%23%3F%2541.txt_OUTPUT.txt"
    [link] = Page(render(report, LocalFolder(tmp_path / "below"))).all("a")
    assert link["href"].startswith("../javascript%3A")


def test_page_size_is_bounded(page, tmp_path):
    rows, failures = MAX_ROWS + 100, MAX_DETAILS + 10
    files = [*(counted(n) for n in range(rows)), *(failed(rows + n, printed="x" * 4000) for n in range(failures))]
    write_page(run_report(*files, usage=usage()), LocalFolder(tmp_path))
    path = tmp_path / "report.html"
    assert path.stat().st_size < 3_000_000
    found = path.read_text()
    assert "The outputs of 100 more files are in" in found
    assert "10 more files failed" in found


def test_unchanged_run_has_page(page):
    found = page(run_report(counted(1, unchanged=True)))
    assert "1 file: 1 unchanged" in found.text
    assert "Node-minutes" not in found.text


def test_page_names_reason_for_missing_corpus(page):
    error = FileError(category=Category.PROGRAM, message="the partials cannot be merged")
    found = page(run_report(counted(1), counted(2), usage=usage(), corpus=error))
    assert "corpus the partials cannot be merged" in found.text
    assert len(found.all("svg")) == 1


def test_failed_run_has_page(page):
    found = page(run_report(failed(1, "a.txt"), usage=usage(running=(), node_seconds=None)))
    assert "1 file: 1 failed" in found.text
    assert found.all("table") == []


def test_page_folder_is_created(tmp_path):
    write_page(run_report(counted(1)), LocalFolder(tmp_path / "new" / "folder"))
    assert Path(tmp_path, "new", "folder", "report.html").read_text().startswith("<!doctype html>")


def test_every_svg_colour_has_dark_variant():
    report = hostile_report()
    for svg in (time_picture(report), report.picture.svg):
        root = ET.fromstring(svg)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        colours = set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", svg))
        assert colours <= DARK_COLOURS.keys()


def test_equal_runs_have_equal_pictures():
    assert time_picture(hostile_report()) == time_picture(hostile_report())
