"""The word count workload: parsing and printing its outputs."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_reports import HOSTILE, corpus_of, counted, input_file, result_of

from task_script import options, top_words, transcoding
from task_script.top_words import Summary, render_text
from tasks.errors import UsageError
from tasks.files import write_atomically
from tasks.model.verdict import Provenance
from tasks.text import printable, printable_lines
from tasks.workload import word_counts
from tasks.workload.word_counts import (
    CORPUS_OUTPUT,
    MAX_CORPUS_ROWS,
    MAX_LINE_WORDS,
    as_text,
    parse_corpus,
    parse_counts,
    word_count_workload,
)

DEFAULTS = word_count_workload(3, ignore_case=False)
WITH_CORPUS = word_count_workload(3, ignore_case=False, corpus=True)

GOOD = {"sha256": "00", "bytes": 5, "words": 2, "distinct": 2, "top": [["a", 1], ["b", 1]]}


@pytest.mark.parametrize(
    "change",
    [
        {"words": "2"},
        {"words": True},
        {"top": [["a", "1"]]},
        {"top": [["a"]]},
        {"top": None},
        {"sha256": None},
        {"distinct": 1.5},
        {"words": -1},
        {"words": 10**4000},
        {"top": [["a", 1 << 64]]},
        # A lone surrogate, which UTF-8 cannot encode.
        {"top": [["\ud800", 1]]},
    ],
)
def test_output_with_wrong_shape_is_rejected(change):
    with pytest.raises(ValueError, match="not valid output of the task script"):
        parse_counts(json.dumps(GOOD | change).encode())


@pytest.mark.parametrize("content", [b"", b"[" * 200_000, b'{"a":' * 200_000, b"9" * 5000, b"\xff", b"null"])
def test_output_must_be_json_document(content):
    with pytest.raises(ValueError, match="not valid output of the task script"):
        parse_counts(content)


def test_incomplete_output_is_rejected():
    for name in GOOD:
        with pytest.raises(ValueError, match="not valid output"):
            parse_counts(json.dumps({key: value for key, value in GOOD.items() if key != name}).encode())


@given(st.lists(st.tuples(st.text(st.characters(codec="utf-8")), st.integers(0, 999)), max_size=2), st.text(min_size=1))
def test_text_output_equals_node_output_and_is_printable(top, place):
    environment = {f"AZ_BATCH_{name}_ID": place for name in ("NODE", "TASK", "JOB", "POOL")}
    on_node = render_text(Summary("input", "00", 1, 1, 1, top), environment)
    provenance = Provenance(node_id=place, task_id=place, job_id=place, pool_id=place)
    assert as_text(result_of("00", top, provenance)) == on_node
    assert printable_lines(on_node) == on_node


def test_words_of_every_script_are_printed_unchanged():
    # Persian with a zero-width non-joiner, Sinhala and an emoji with zero-width joiners.
    for word in ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "ශ්\u200dරී", "👩\u200d👧"):
        assert f"3  {word}\n" in as_text(result_of("00", ((word, 3),)))


CORPUS = {"words": 2, "distinct": 2, "top": [["a", 1], ["b", 1]]}


@pytest.mark.parametrize(
    "change",
    [
        {"words": "2"},
        {"words": True},
        {"top": [["a"]]},
        {"top": None},
        {"distinct": 1.5},
        {"words": -1},
        {"top": [["a", 1 << 63]]},
        {"top": [["\ud800", 1]]},
    ],
)
def test_corpus_with_wrong_shape_is_rejected(change):
    content = json.dumps(CORPUS | change).encode()
    with pytest.raises(ValueError, match="not valid output of a merge"):
        parse_corpus(content)
    assert WITH_CORPUS.corpus_error({CORPUS_OUTPUT: content}).startswith("The output of the merge cannot be read: ")


@pytest.mark.parametrize("outputs", [{}, {CORPUS_OUTPUT: b""}, {CORPUS_OUTPUT: b"[" * 200_000}, {CORPUS_OUTPUT: b"{}"}])
def test_incomplete_corpus_is_rejected(outputs):
    assert WITH_CORPUS.corpus_error(outputs)
    assert not WITH_CORPUS.corpus_error({CORPUS_OUTPUT: json.dumps(CORPUS).encode()})


def test_corpus_documents_contain_words_and_failures():
    documents = WITH_CORPUS.corpus_documents(corpus_of((("the", 1006), ("é", 4)), failed=("bad.txt",)))
    assert tuple(documents) == WITH_CORPUS.corpus_names
    assert documents["corpus.txt"].decode().splitlines() == [
        "1006  the",
        "   4  é",
        "",
        "1,000 words, 100 of them distinct, in 2 files.",
        "Not included, because it failed: bad.txt",
    ]
    assert json.loads(documents["corpus.json"]) == {
        "files": 2,
        "failed": ["bad.txt"],
        "words": 1000,
        "distinct": 100,
        "top": [["the", 1006], ["é", 4]],
    }


def test_corpus_without_words_has_documents():
    corpus = corpus_of((), files=1)
    assert WITH_CORPUS.corpus_documents(corpus)["corpus.txt"].startswith(b"(no words)\n")
    assert WITH_CORPUS.corpus_line(corpus) == "1,000 words, 100 of them distinct, in 1 file"
    assert (WITH_CORPUS.corpus_rows(corpus), WITH_CORPUS.picture([], corpus)) == ([], None)


def test_hostile_words_of_corpus_are_printable():
    corpus = corpus_of([(word, 1) for word in HOSTILE], failed=tuple(HOSTILE))
    documents = WITH_CORPUS.corpus_documents(corpus)
    shown = documents["corpus.txt"].decode()
    assert printable_lines(shown) == shown
    assert len(shown.splitlines()) == 2 * len(HOSTILE) + 2
    assert printable(WITH_CORPUS.corpus_line(corpus)) == WITH_CORPUS.corpus_line(corpus)
    assert json.loads(documents["corpus.json"])["top"] == [[word, 1] for word in HOSTILE]


def test_corpus_line_and_rows_are_short():
    corpus = corpus_of([(f"word{number}", 1000 - number) for number in range(900)])
    assert WITH_CORPUS.corpus_line(corpus).count("word") == MAX_LINE_WORDS + 1
    assert WITH_CORPUS.corpus_line(corpus).endswith(", …")
    assert len(WITH_CORPUS.corpus_rows(corpus)) == MAX_CORPUS_ROWS


def test_rows_of_corpus_contain_change():
    words = (("a", 1006), ("b", 4), ("c", 3), ("d", 2))
    rows = WITH_CORPUS.corpus_rows(corpus_of(words, before=(("a", 6), ("b", 5), ("c", 3))))
    assert [(row["word"], row["count"], row["change"]) for row in rows] == [
        ("a", 1006, "+1,000"),
        ("b", 4, "-1"),
        ("c", 3, "0"),
        ("d", 2, "new"),
    ]
    for previous in ({}, {"corpus.json": b"{"}):
        rows = WITH_CORPUS.corpus_rows(replace(corpus_of(words), previous=previous))
        assert rows[0] == {"word": "a", "count": 1006}


def test_corpus_of_one_file_equals_its_counts():
    file = counted(1)
    outputs = WITH_CORPUS.corpus_of_file(file.file, file.result)
    assert not WITH_CORPUS.corpus_error(outputs)
    assert parse_corpus(outputs[CORPUS_OUTPUT]).top == (("the", 3), ("of", 2))


def test_partials_depend_only_on_counting():
    keys = {
        word_count_workload(number, False, corpus=corpus).partial_sha256
        for number in (3, 5)
        for corpus in (True, False)
    }
    assert len(keys) == 1
    assert WITH_CORPUS.sha256 == DEFAULTS.sha256
    others = {word_count_workload(3, *options).partial_sha256 for options in ((True,), (False, "cp1252"))}
    assert len(keys | others) == 3


def test_table_cell_cuts_long_word_lists():
    top = [(f"word{n}", 1000 - n) for n in range(1000)]
    cells = word_count_workload(1000, ignore_case=False).columns(input_file(1), result_of("00", top))
    assert cells["top words"][:2] == [("word0", "1,000"), ("word1", "999")]
    assert cells["top words"][-1] == ("…", "")
    assert len(cells["top words"]) < 20


def test_file_is_written_atomically(tmp_path):
    target = tmp_path / "below" / "file"
    write_atomically(target, b"first")
    with pytest.raises(TypeError):
        write_atomically(target, "no bytes")
    assert target.read_bytes() == b"first"
    assert [path.name for path in target.parent.iterdir()] == ["file"]


def test_only_other_options_change_results():
    for spelling in ("utf-8", "UTF8", "utf-8-sig"):
        assert word_count_workload(3, False, spelling, 10_000).sha256 == DEFAULTS.sha256
    latin1 = word_count_workload(3, False, "latin-1")
    assert latin1.sha256 == word_count_workload(3, False, "ISO-8859-1").sha256
    limited = word_count_workload(3, False, max_expanded_mb=1)
    assert len({DEFAULTS.sha256, latin1.sha256, limited.sha256}) == 3


def test_repeat_command_shows_options():
    command = word_count_workload(3, True, "cp1252", 7).repeat_command(input_file(0))
    assert "--num-words 3 --ignore-case --encoding cp1252 --max-expanded-mb 7 -- " in command


@pytest.mark.parametrize(
    "encoding", ["hex", "rot13", "base64", "zip", "idna", "klingon", "", "\0", "\udcff", "\x1b[31m"]
)
def test_encoding_must_be_for_text(encoding):
    with pytest.raises(UsageError, match="is not a text encoding of Python") as error:
        word_count_workload(3, False, encoding)
    assert str(error.value).isprintable()


def test_task_script_has_same_values():
    assert word_counts.COMPRESSIONS == top_words.COMPRESSIONS
    assert options.DEFAULT_MAX_EXPANDED_MB == word_counts.DEFAULT_MAX_EXPANDED_MB
    assert options.Options().encoding == word_counts.DEFAULT_ENCODING
    assert set(word_counts.NOT_FOR_FILES) == transcoding.NOT_FOR_FILES
