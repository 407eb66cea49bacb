"""Runs from Python, as on docs/python.md."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from pathlib import Path

import pytest
from tests_support import REPOSITORY, independent_count

from flows.api import run
from flows.topn import topn as flow
from tasks.errors import UsageError

PAGE = (REPOSITORY / "docs/python.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def data():
    """Two of the sample texts, and a file that is not UTF-8."""
    Path("data").mkdir()
    for name in ("hamlet.txt", "sonnets.txt"):
        shutil.copy(REPOSITORY / "data" / name, "data")
    Path("data/bad.txt").write_bytes(b"\xff")


def test_examples_of_page_run(topn, data, assert_nothing_left, capsys):
    before = dict(os.environ)
    with topn.environ():
        inside = dict(os.environ)
        names = {}
        for example in EXAMPLES:
            exec(example, names)
        assert dict(os.environ) == inside
    assert dict(os.environ) == before
    assert_nothing_left()
    printed = capsys.readouterr()
    for name in ("hamlet.txt", "sonnets.txt"):
        *_, top = independent_count(Path("data", name).read_text("utf-8"), 5)
        for rank, (word, count) in enumerate(top, 1):
            assert f"{name} {rank} {word} {count}\n" in printed.out
    assert "\nbad.txt is not UTF-8 text" in printed.out
    assert "bad.txt is not UTF-8 text (byte 0xff at offset 0). 1 of 3 files failed." in printed.err
    assert printed.out.endswith("3 files: 2 counted, 1 failed\n")
    assert [len(report.rows) for report in names["reports"]] == [2, 4]


def test_run_works_while_event_loop_runs(topn, data, capsys):
    """A cell of a notebook runs in the thread of an event loop."""

    async def cell():
        return run(flow, ["data/hamlet.txt"], num_words=1)

    with topn.environ():
        report = asyncio.run(cell())
        with pytest.raises(UsageError, match=r"missing\.txt does not exist"):
            run(flow, ["missing.txt"])
    assert repr(report) == "<RunReport: 1 file: 1 counted>"
    assert report.rows == [{"file": "hamlet.txt", "rank": 1, "word": "the", "count": 989}]
