"""The word count workload: parsing and printing its outputs."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_reports import counted, input_file, result_of

from task_script import options, top_words, transcoding
from task_script.top_words import Summary, render_text
from tasks.errors import UsageError
from tasks.files import write_atomically
from tasks.model.verdict import Provenance
from tasks.text import printable_lines
from tasks.workload import word_counts
from tasks.workload.word_counts import as_text, most_frequent_words, parse_counts, word_count_workload

DEFAULTS = word_count_workload(3, ignore_case=False)

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


def test_most_frequent_words_are_summed_over_files():
    results = [counted(n, top=top).result for n, top in ((1, (("b", 5), ("a", 3))), (2, (("a", 4), ("c", 1))))]
    assert most_frequent_words(results) == [("a", 7), ("b", 5), ("c", 1)]


def test_table_cell_cuts_long_word_lists():
    top = [(f"word{n}", 1000 - n) for n in range(1000)]
    cells = word_count_workload(1000, ignore_case=False).columns(result_of("00", top))
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
