"""The corpus of real runs: exact, and merged again only where a file has changed."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest
from tests_support import independent_count

from tasks.model import corpus
from tasks.model.corpus import group_bits

TEXTS = {f"{number}.txt": f"the {number} é {'word ' * number}" for number in range(8)} | {
    "copy.txt": "the 1 é word ",
    "empty.txt": "",
}


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """Merge few partials at once, so that a few files need several levels."""
    monkeypatch.setattr(corpus, "MAX_WIDTH", 3)


@pytest.fixture
def run(topn, assert_nothing_left):
    """Return a function that runs `topn` on a folder of texts, and returns its document and the number of merges."""

    def run(*arguments, texts=TEXTS, status=0):
        for name, content in texts.items():
            path = Path("in", name)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        done = topn("run", "--json", "in", *arguments)
        assert done.returncode == status, done.stderr
        assert_nothing_left()
        merged = re.findall(r"^merged \d+ of (\d+)$", done.stderr, re.MULTILINE)
        return json.loads(done.stdout), int(merged[-1]) if merged else 0

    return run


def words_of(texts):
    words, distinct, top = independent_count("\n".join(texts.values()))
    return {"words": words, "distinct": distinct, "top": top}


def test_packed_files_make_corpus(run):
    packed = {"packed.txt.gz": gzip.compress(b"the packed word"), "bad.txt": b"\xff"}
    found, merges = run("--files-per-task", "4", texts=TEXTS | packed, status=1)
    expected = {"files": 11, "failed": ["bad.txt"], **words_of(TEXTS | {"packed": "the packed word"})}
    assert found["corpus"] == json.loads(Path("results/corpus.json").read_text()) == expected
    assert merges > len(group_bits(11))
    lines = Path("results/corpus.txt").read_text().splitlines()
    assert lines[0].split() == ["30", "word"]
    assert lines[-1] == "Not included, because it failed: bad.txt"
    manifest = json.loads(Path("results/manifest.json").read_text())
    assert {"corpus.txt", "corpus.json"} <= set(manifest["documents"])
    assert "corpus" not in Path("results/results.csv").read_text()


def test_next_runs_merge_what_has_changed(run):
    run("--no-corpus")
    assert not Path("results/corpus.json").exists()
    found, _ = run()
    assert (found["counted"], found["corpus"]) == (10, {"files": 10, "failed": [], **words_of(TEXTS)})
    changed = TEXTS | {"5.txt": "something else"}
    found, merges = run(texts=changed)
    assert (found["counted"], found["unchanged"]) == (1, 9)
    # A group of one file needs no merge.
    assert 1 <= merges <= len(group_bits(10)) + 1
    assert found["corpus"] == {"files": 10, "failed": [], **words_of(changed)}
    again, merges = run(texts=changed)
    assert (again["corpus"], again["counted"], merges) == (found["corpus"], 0, 0)
