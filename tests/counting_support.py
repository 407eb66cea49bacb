"""Texts with unusual characters, and a naive word counter to compare with."""

from __future__ import annotations

import hashlib
import os
import re
import string
import sys
from collections import Counter
from unittest import mock

import pytest
from hypothesis import strategies as st

from task_script import counting
from task_script.counting import count_words
from task_script.counts import Counts
from task_script.native.compiled import CompiledCounts
from task_script.text import NotTextError

# The characters at which `str.split` splits.
WHITE_SPACE = re.findall(r"\s", "".join(map(chr, range(sys.maxunicode + 1))))

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

# Short words of few letters are often equal. The other characters are those that decoders and splitters get wrong.
TEXTS = st.lists(
    st.one_of(
        st.text("abAB\u00df\u0130", max_size=3),
        st.builds(str.__mul__, st.sampled_from(["ab", "\u00df."]), st.integers(0, 20)),
        st.sampled_from([*WHITE_SPACE, *string.punctuation, "\ufeff", "\u200b", "\u0345", "\u3042", "\U0001f600"]),
        st.text(max_size=4).map(lambda text: text.replace("\0", "")),
    ),
    max_size=30,
).map("".join)


# Keyword arguments of `count_words`: small blocks, and a memory limit that is reached after each block, after some
# blocks, or never. All must have the result of counting the whole text at once.
OPTIONS = st.fixed_dictionaries(
    {
        "num_words": st.one_of(st.integers(1, 5), st.just(10**9)),
        "ignore_case": st.booleans(),
        "memory_mb": st.sampled_from([0, 0.001, 0.002, 512]),
        "block_bytes": st.integers(1, 20),
    }
)


NOT_TEXT = [
    (b"plain \xff", "is not UTF-8 text (byte 0xff at offset 6)"),
    (b"\xef\xbb\xbf\xff", "is not UTF-8 text (byte 0xff at offset 3)"),
    (b"cut \xe2\x82", "is not UTF-8 text (byte 0xe2 at offset 4)"),
    (b"cut \xe2\x82 by a space", "is not UTF-8 text (byte 0xe2 at offset 4)"),
    (b"surrogate \xed\xa0\x80", "is not UTF-8 text (byte 0xed at offset 10)"),
    (b"a\0\xff", "has a NUL byte at offset 1"),
    (b"a\xe2\x82\0", "is not UTF-8 text (byte 0xe2 at offset 1)"),
    (b"a \xff b c d e \xfe f \0", "is not UTF-8 text (byte 0xff at offset 2)"),
]

# Text and other bytes.
BYTES = st.lists(st.one_of(st.binary(max_size=3), TEXTS.map(str.encode)), max_size=6).map(b"".join)


def count(data, *, compiled=False, **options):
    """Count the words of a real file, with the defaults of the command line."""
    kind = CompiledCounts if compiled else Counts
    options = {"num_words": 3, "ignore_case": False, "memory_mb": 256, **options}
    with mock.patch.object(counting, "MIN_COMPILED_BYTES", 0 if compiled else sys.maxsize):
        assert type(counting._create_counts(0)) is kind
        with open(os.memfd_create("text"), "r+b", buffering=0) as stream:
            stream.write(data)
            stream.seek(0)
            return count_words(stream, **options)


def count_all(text, **options):
    """Count a text, and return all words with their counts."""
    return dict(count(text.encode(), num_words=10**9, **options)[0].top)


def naive_counts(data: bytes, *, ignore_case: bool) -> Counter[str]:
    text = data.decode("utf-8-sig")
    words = (token.strip(string.punctuation) for token in (text.casefold() if ignore_case else text).split())
    return Counter(word for word in words if word)


def naive_top(counts, n):
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:n]


def check_against_naive(data, options, *, compiled=False):
    expected = naive_counts(data, ignore_case=options["ignore_case"])

    totals, fingerprint = count(data, compiled=compiled, **options)

    assert totals.top == naive_top(expected, options["num_words"])
    assert (totals.words, totals.distinct) == (sum(expected.values()), len(expected))
    assert (fingerprint.size_bytes, fingerprint.sha256.digest()) == (len(data), hashlib.sha256(data).digest())


def check_error_against_naive(data, options, *, compiled=False):
    offset = naive_error_offset(data)

    if offset is None:
        check_against_naive(data, options, compiled=compiled)
    else:
        with pytest.raises(NotTextError, match=rf"offset {offset}\b"):
            count(data, compiled=compiled, **options)


def naive_error_offset(data: bytes) -> int | None:
    nul = data.find(b"\0")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start if nul < 0 else min(nul, error.start)
    return None if nul < 0 else nul
