from __future__ import annotations

import hashlib
import os
import string
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests_support import wait_until

from task_script import counting
from task_script.compiled import CompiledCounts
from task_script.counting import (
    PUNCTUATION,
    CountingError,
    Counts,
    Fingerprint,
    NotTextError,
    _idle_processors,
    count_words,
    top_words,
)
from task_script.large_files import count_in_processes
from task_script.options import Options

# From 3.12 on, Python warns of forking beside threads; the task script has none, but these tests may.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

# What str.split splits at, found by asking it.
WHITE_SPACE = [chr(code) for code in range(0x110000) if not chr(code).split()]

CASES = [
    pytest.param("", 3, [], id="empty"),
    pytest.param(" \t\r\n", 3, [], id="white space only"),
    pytest.param("-- ... '' *", 3, [], id="punctuation only"),
    pytest.param("the cat the dog the cat", 2, [("the", 3), ("cat", 2)], id="by count"),
    pytest.param("b a c", 2, [("a", 1), ("b", 1)], id="ties by word"),
    pytest.param("\U0001f600 \uffee z Z", 4, [("Z", 1), ("z", 1), ("\uffee", 1), ("\U0001f600", 1)], id="code points"),
    pytest.param("b b c c a", 1, [("b", 2)], id="tie for the last place"),
    pytest.param("one two", 10**30, [("one", 1), ("two", 1)], id="fewer words than asked for"),
    pytest.param("The the THE", 3, [("THE", 1), ("The", 1), ("the", 1)], id="case counts"),
    pytest.param('"Hello," (hello)! it\'s well-known', 2, [("Hello", 1), ("hello", 1)], id="stripped at both ends"),
    pytest.param("it's 'tis well-known...", 3, [("it's", 1), ("tis", 1), ("well-known", 1)], id="not stripped inside"),
    pytest.param("\u201cword\u201d word", 3, [("word", 1), ("\u201cword\u201d", 1)], id="only ASCII punctuation"),
    pytest.param("a\r\nb\r\na\r\n", 2, [("a", 2), ("b", 1)], id="CRLF"),
    pytest.param("\ufeffword word", 1, [("word", 2)], id="byte order mark"),
    pytest.param("\ufeff\ufeffa \ufeffa", 3, [("\ufeffa", 2)], id="only one byte order mark, at the start"),
    pytest.param("a\u200bb a\u2060b", 2, [("a\u200bb", 1), ("a\u2060b", 1)], id="invisible, not white space"),
]

# Short words from few letters meet often; the rest looks for what sets the readers of text apart.
TEXTS = st.lists(
    st.one_of(
        st.text("abAB\u00df\u0130", max_size=3),
        st.builds(str.__mul__, st.sampled_from(["ab", "\u00df."]), st.integers(0, 20)),
        st.sampled_from([*WHITE_SPACE, *string.punctuation, "\ufeff", "\u200b", "\u0345", "\u3042", "\U0001f600"]),
        st.text(max_size=4).map(lambda text: text.replace("\0", "")),
    ),
    max_size=30,
).map("".join)


# Each must give what counting the whole text at once gives: small blocks, counts put aside after each block, after
# some, or never, and ranges for several processes.
WAYS = st.builds(
    Options,
    num_words=st.one_of(st.integers(1, 5), st.just(10**9)),
    ignore_case=st.booleans(),
    processes=st.just(1),
    memory_mb=st.sampled_from([0, 0.001, 0.002, 512]),
    block_size=st.integers(1, 20),
)
WAYS_OF_PROCESSES = st.builds(
    Options,
    num_words=st.one_of(st.integers(1, 5), st.just(10**9)),
    ignore_case=st.booleans(),
    processes=st.integers(2, 4),
    memory_mb=st.sampled_from([0, 0.002, 512]),
    block_size=st.integers(1, 20),
)


KINDS = pytest.mark.parametrize("compiled", [False, True], ids=["Python", "compiled"])


def count(data, options, *, compiled=False):
    """Count what a real file holds."""
    kind = CompiledCounts if compiled else Counts
    with mock.patch.object(counting, "COMPILED_FROM_BYTES", 0 if compiled else sys.maxsize):
        assert type(counting._counts_for(0)) is kind
        with open(os.memfd_create("text"), "r+b", buffering=0) as stream:
            stream.write(data)
            stream.seek(0)
            return count_words(stream, options)


def count_all(text, *, compiled=False, **options):
    """Count a text, and return every word of it with its count."""
    return dict(count(text.encode(), Options(num_words=10**9, processes=1, **options), compiled=compiled)[0].top)


def naive_counts(data: bytes, *, ignore_case: bool = False) -> Counter[str]:
    text = data.decode("utf-8-sig")
    words = (token.strip(string.punctuation) for token in (text.casefold() if ignore_case else text).split())
    return Counter(word for word in words if word)


def naive_top(counts, n):
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:n]


def check_against_naive(data, options, *, compiled):
    expected = naive_counts(data, ignore_case=options.ignore_case)

    totals, fingerprint = count(data, options, compiled=compiled)

    assert totals.top == naive_top(expected, options.num_words)
    assert (totals.words, totals.distinct) == (sum(expected.values()), len(expected))
    assert (fingerprint.size_bytes, fingerprint.sha256.digest()) == (len(data), hashlib.sha256(data).digest())


def check_error_against_naive(data, options, *, compiled):
    offset = naive_error_offset(data)

    if offset is None:
        check_against_naive(data, options, compiled=compiled)
    else:
        with pytest.raises(NotTextError, match=rf"offset {offset}\b"):
            count(data, options, compiled=compiled)


def naive_error_offset(data: bytes) -> int | None:
    nul = data.find(b"\0")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start if nul < 0 else min(nul, error.start)
    return None if nul < 0 else nul


@pytest.mark.parametrize(("text", "n", "expected"), CASES)
@pytest.mark.parametrize(
    "way",
    [{"block_size": 1}, {"block_size": 7}, {}, {"memory_mb": 0, "block_size": 7}, {"processes": 2}, {"processes": 9}],
    ids=str,
)
@KINDS
def test_top_words(text, n, expected, way, compiled):
    assert count(text.encode(), Options(n, **way), compiled=compiled)[0].top == expected


@KINDS
def test_ignoring_case_folds_words(compiled):
    counts = count_all("Stra\u00dfe STRASSE The the", ignore_case=True, compiled=compiled)

    assert counts == {"strasse": 2, "the": 2}


def test_folding_makes_and_removes_no_white_space_and_no_punctuation():
    separating = {*WHITE_SPACE, *string.punctuation}
    for char in map(chr, range(0x110000)):
        folded = char.casefold()
        assert folded == char if char in separating else not separating.intersection(folded), ascii(char)


@KINDS
def test_every_white_space_character_separates(compiled):
    assert len(WHITE_SPACE) == 29
    text = "a" + "".join(f"{space}a" for space in WHITE_SPACE)

    for block_size in (1, 2, 3, 1000):
        assert count_all(text, block_size=block_size, compiled=compiled) == {"a": 30}
    assert count(text.encode(), Options(1, processes=4), compiled=compiled)[0].top == [("a", 30)]


def test_the_punctuation_is_that_of_ascii():
    assert string.punctuation == PUNCTUATION


@settings(deadline=None)
@given(TEXTS, WAYS, st.booleans())
def test_any_text_is_counted_as_by_reading_it_whole(text, options, compiled):
    check_against_naive(text.encode(errors="ignore"), options, compiled=compiled)


@settings(max_examples=50, deadline=None)
@given(TEXTS, WAYS_OF_PROCESSES, st.booleans())
def test_any_text_is_counted_in_processes_as_by_reading_it_whole(text, options, compiled):
    check_against_naive(text.encode(errors="ignore"), options, compiled=compiled)


@given(st.dictionaries(st.text(max_size=2), st.integers(1, 4)), st.integers(0, 12))
def test_top_words_are_the_first_of_all_sorted(counts, n):
    assert top_words(Counter(counts), n) == naive_top(counts, n)


BYTES = st.lists(st.one_of(st.binary(max_size=3), TEXTS.map(str.encode)), max_size=6).map(b"".join)


@settings(deadline=None)
@given(BYTES, WAYS, st.booleans())
def test_what_is_not_text_is_refused_at_the_byte_that_decoding_it_whole_names(data, options, compiled):
    check_error_against_naive(data, options, compiled=compiled)


@settings(max_examples=50, deadline=None)
@given(BYTES, WAYS_OF_PROCESSES, st.booleans())
def test_what_is_not_text_is_refused_by_processes_at_the_same_byte(data, options, compiled):
    check_error_against_naive(data, options, compiled=compiled)


@pytest.mark.faults
@pytest.mark.timeout(1200)
@settings(max_examples=2000, deadline=None)
@given(BYTES, st.one_of(WAYS, WAYS, WAYS, WAYS_OF_PROCESSES), st.booleans())
def test_a_long_campaign_finds_no_difference(data, options, compiled):
    check_error_against_naive(data, options, compiled=compiled)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"plain \xff", "is not UTF-8 text (byte 0xff at offset 6)"),
        (b"\xef\xbb\xbf\xff", "is not UTF-8 text (byte 0xff at offset 3)"),
        (b"cut \xe2\x82", "is not UTF-8 text (byte 0xe2 at offset 4)"),
        (b"cut \xe2\x82 by a space", "is not UTF-8 text (byte 0xe2 at offset 4)"),
        (b"surrogate \xed\xa0\x80", "is not UTF-8 text (byte 0xed at offset 10)"),
        (b"a\0\xff", "has a NUL byte at offset 1"),
        (b"a\xe2\x82\0", "is not UTF-8 text (byte 0xe2 at offset 1)"),
        (b"a \xff b c d e \xfe f \0", "is not UTF-8 text (byte 0xff at offset 2)"),
    ],
)
@pytest.mark.parametrize("processes", [1, 3])
@KINDS
def test_refusals_say_what_is_wrong(data, message, processes, compiled):
    with pytest.raises(NotTextError) as refusal:
        count(data, Options(processes=processes, block_size=2), compiled=compiled)

    assert str(refusal.value) == message


@KINDS
def test_a_long_token_takes_linear_time(compiled):
    # If each of the 16,000 blocks joined the token anew, this would copy 16 GB.
    token = "\u00e9" * (1 << 20)

    assert count_all(f"a\u2003{token}\u2003a", block_size=128, compiled=compiled) == {"a": 2, token: 1}


def test_a_pipe_is_read_once_whatever_the_processes():
    reading, writing = os.pipe()
    with open(writing, "wb") as stream:
        stream.write("\ufeffa b \ufeffa".encode())
    with open(reading, "rb", buffering=0) as stream:
        totals, _ = count_words(stream, Options(processes=4))

    assert totals.top == [("a", 1), ("b", 1), ("\ufeffa", 1)]


@KINDS
def test_a_file_without_safe_cuts_is_one_range(compiled):
    text = "\u00e9\u2003" * 50_000

    totals, _ = count(text.encode(), Options(processes=3), compiled=compiled)

    assert totals.top == [("\u00e9", 50_000)]


def test_a_file_that_is_cut_short_meanwhile_is_not_counted():
    with open(os.memfd_create("text"), "r+b") as stream:
        stream.write(b"a b c ")
        stream.flush()
        with pytest.raises(CountingError, match="cut short"):
            count_in_processes(stream.fileno(), 7, 2, Options(), Fingerprint(), Counts())


def test_no_more_processes_than_the_node_has_is_a_sentence(monkeypatch):
    def refuse():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)

    with pytest.raises(CountingError, match="no process can be started"):
        count(b"a b", Options(processes=2))


def test_busy_processors_are_left_to_those_who_keep_them_busy():
    assert _idle_processors() < len(os.sched_getaffinity(0)) + 1
    with ExitStack() as stack:
        for _ in os.sched_getaffinity(0):
            busy = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(busy.kill)
            stat = Path(f"/proc/{busy.pid}/stat")
            wait_until(lambda stat=stat: stat.read_text().rpartition(")")[2].split()[0] == "R", "a busy process")

        assert _idle_processors() <= 1
