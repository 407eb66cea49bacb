"""The HTML report of a run: complete, self-contained, and safe with hostile names and words."""

from __future__ import annotations

import base64
import hashlib
import platform
import re
import xml.etree.ElementTree as ET
from dataclasses import fields, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from run_reports import HOSTILE, corpus_of, counted, entry_of, failed, hostile_report, input_file, run_report, usage

from tasks.model.pool import DEFAULT_SETUP
from tasks.model.verdict import Category, FileError
from tasks.report.charts import time_picture
from tasks.report.comparison import compare
from tasks.report.folders import LocalFolder
from tasks.report.html import render, write_page
from tasks.report.manifest import Manifest
from tasks.text import printable, printable_lines
from tasks.workload.drawing import DARK_COLOURS
from tasks.workload.word_counts import WordCountWorkload


class Page(HTMLParser):
    """A parsed page: its elements with their attributes, its text, and the rows of its tables."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.text, self.rows, self.is_in_table = [], "", [], False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.is_in_table = self.is_in_table or tag == "table"
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self.is_in_table = self.is_in_table and tag != "table"

    def handle_data(self, data):
        self.text += data
        if self.is_in_table and self.rows and self.rows[-1]:
            self.rows[-1][-1] = f"{self.rows[-1][-1]}{data}".rstrip("\n")

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


def test_page_is_self_contained(page):
    found = page(hostile_report())
    assert {tag for tag, _ in found.elements} & {"img", "link", "iframe", "object", "base", "form"} == set()
    for tag, attributes in found.elements:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href", "xlink:href", "data", "action"):
            if name in attributes:
                assert not re.match(r"[a-z]+:|//", attributes[name]), attributes
    [policy] = [meta["content"] for meta in found.all("meta") if meta.get("http-equiv")]
    assert policy.startswith("default-src 'none'")


def test_only_own_script_is_allowed(tmp_path):
    html = render(hostile_report(), LocalFolder(tmp_path))
    [script] = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src &#39;sha256-{digest}&#39;" in html or f"script-src 'sha256-{digest}'" in html
    assert html.count("<script") == 1


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


def test_ten_thousand_files_are_on_page(tmp_path):
    """Each has a name of 30 characters and three words. A hundred of them failed with much output."""
    first = counted(0, top=(("the", 1234), ("of", 987), ("and", 765)))
    names = [f"reports/2026-11/report{n:04}.txt" for n in range(10_000)]
    files = [replace(first, file=input_file(n, name)) for n, name in enumerate(names[:-100])]
    files += [failed(n, name, printed="x" * 4000) for n, name in enumerate(names[-100:])]
    write_page(run_report(*files, usage=usage(), output_folder=str(tmp_path / "results")), LocalFolder(tmp_path))
    path = tmp_path / "report.html"
    assert path.stat().st_size < 2_000_000
    html = path.read_text()
    assert len(re.findall(r"<tr><td><a href=", html)) == 9_900
    assert len(re.findall(r"<tr class=failed><td>reports", html)) == 100
    assert "75 more files failed." in html


@pytest.mark.parametrize(
    ("max_bytes", "has_links", "rows"), [(40_000, True, 101), (14_000, False, 101), (5_000, False, 40)]
)
def test_large_table_loses_links_before_rows(page, monkeypatch, max_bytes, has_links, rows):
    monkeypatch.setattr("tasks.report.html.MAX_TABLE_BYTES", max_bytes)
    files = [counted(n, f"{n:050}", top=tuple((f"word{m}", 9) for m in range(50))) for n in range(100)]
    found = page(run_report(*files, failed(0, "bad.txt"), usage=usage()))
    assert bool(found.all("a")) == has_links
    assert ("The names are no links" in found.text) != has_links
    named = [row[0] for row in found.rows if row[0] == "bad.txt" or row[0].startswith("0000")]
    assert (named[0], abs(len(named) - rows) < 10) == ("bad.txt", True)
    assert (f"It does not name {101 - len(named)} more files" in found.text) == (len(named) < 101)


def test_failed_files_are_first_in_table(page):
    found = page(run_report(counted(1, "a.txt"), failed(2, "b.txt", "b.txt is not UTF-8 text")))
    start = found.rows.index(["file", "status", "words", "distinct", "top words"])
    assert found.rows[start + 1 : start + 3] == [
        ["b.txt", "failed", "is not UTF-8 text"],
        ["a.txt", "counted", "1,000", "100", "the 3, of 2"],
    ]
    options = [attributes["value"] for attributes in found.all("option")]
    assert options == ["", "counted", "failed"]


def test_page_compares_with_previous_run(page):
    before = Manifest(
        run={"started_at": "2026-11-21T02:00:00+00:00", "figures": {"Words": "1,000"}, "cost": "0.5000 USD"},
        entries=(entry_of(1), entry_of(2), entry_of(3), entry_of(9)),
    )
    after = Manifest(
        run={"figures": {"Words": "1,200"}},
        entries=(entry_of(1), entry_of(2, sha256="f"), entry_of(3, status="failed"), entry_of(4)),
    )
    report = run_report(counted(1), counted(2), failed(3), counted(4))
    found = page(replace(report, comparison=compare(before, after)))
    assert "1 new, 1 changed, 1 missing, 1 newly failed; 2 with the same content." in found.text
    assert "That run started at Saturday, 21 November 2026, 02:00 UTC." in found.text
    assert {row[0]: row[2] for row in found.rows if row[0].startswith("file") and len(row) > 3} == {
        "file": "change", "file1.txt": "", "file2.txt": "changed", "file3.txt": "newly failed", "file4.txt": "new",
    }  # fmt: skip
    assert ["Words", "1,000", "1,200", "+200"] in found.rows
    assert ["Cost of the nodes", "0.5000 USD", "no cost", ""] in found.rows


def test_page_shows_parameters_without_secrets(page):
    parameters = {
        "inputs": [f"{n}.txt" for n in range(30)],
        "num_words": 1000,
        "refresh": False,
        "table": None,
        "token": "https://x.invalid/?sig=abcdefghijkl",
        "pool": DEFAULT_SETUP.model_dump(mode="json"),
    }
    found = page(replace(run_report(counted(1)), parameters=parameters))
    rows = {row[0]: row[1] for row in found.rows}
    assert rows["inputs"].startswith("0.txt, 1.txt, ")
    assert rows["inputs"].endswith("19.txt and 10 more")
    assert (rows["num_words"], rows["refresh"]) == ("1,000", "false")
    assert rows["output folder"] == f"/data/results on {platform.node()}"
    assert not {"table", "pool"} & rows.keys()
    assert "abcdefghijkl" not in found.text


def test_page_leads_to_run(page):
    url = "https://prefect.example.com/runs/flow-run/1"
    assert url in [link["href"] for link in page(replace(run_report(counted(1)), run_url=url)).all("a")]
    assert "in Prefect" not in page(run_report(counted(1))).text


def test_page_names_outputs_that_were_not_written(page):
    found = page(replace(run_report(counted(1)), unwritten=("a_OUTPUT.txt (No space left on device)",)))
    assert "a_OUTPUT.txt (No space left on device)" in found.text
    assert found.all("span")[0]["class"] == "chip failed"


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
    assert found.rows[:2] == [["file", "status", "reason"], ["a.txt", "failed", "The program ended with exit code 137"]]


def test_page_folder_is_created(tmp_path):
    write_page(run_report(counted(1)), LocalFolder(tmp_path / "new" / "folder"))
    assert Path(tmp_path, "new", "folder", "report.html").read_text().startswith("<!doctype html>")


def test_every_svg_colour_has_dark_variant():
    report = hostile_report()
    for svg in (time_picture(report), report.picture.svg):
        root = ET.fromstring(svg)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        shapes = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
        colours = set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", shapes))
        assert colours <= DARK_COLOURS.keys()


def test_equal_runs_have_equal_pictures():
    assert time_picture(hostile_report()) == time_picture(hostile_report())
