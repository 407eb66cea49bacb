from __future__ import annotations

import hashlib
import io
import string
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from task_script.counting import NotTextError, count_words, top_words

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
        st.sampled_from([*WHITE_SPACE, *string.punctuation, "\ufeff", "\u200b", "\u0345", "\u3042", "\U0001f600"]),
        st.text(max_size=4).map(lambda text: text.replace("\0", "")),
    ),
    max_size=30,
).map("".join)


def naive_counts(data: bytes, *, ignore_case: bool = False) -> Counter[str]:
    text = data.decode("utf-8-sig")
    words = (token.strip(string.punctuation) for token in (text.casefold() if ignore_case else text).split())
    return Counter(word for word in words if word)


def naive_error_offset(data: bytes) -> int | None:
    nul = data.find(b"\0")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start if nul < 0 else min(nul, error.start)
    return None if nul < 0 else nul


@pytest.mark.parametrize(("text", "n", "expected"), CASES)
@pytest.mark.parametrize("block_size", [1, 7, 64 * 1024])
def test_top_words(text, n, expected, block_size):
    tally = count_words(io.BytesIO(text.encode()), block_size=block_size)

    assert top_words(tally.counts, n) == expected


def test_ignoring_case_folds_words():
    tally = count_words(io.BytesIO("Stra\u00dfe STRASSE The the".encode()), ignore_case=True)

    assert tally.counts == {"strasse": 2, "the": 2}


def test_every_white_space_character_separates():
    assert len(WHITE_SPACE) == 29
    text = "a" + "".join(f"{space}a" for space in WHITE_SPACE)

    for block_size in (1, 2, 3, 1000):
        assert count_words(io.BytesIO(text.encode()), block_size=block_size).counts == {"a": 30}


@given(TEXTS, st.integers(1, 20), st.booleans())
def test_any_text_is_counted_as_by_reading_it_whole(text, block_size, ignore_case):
    data = text.encode(errors="ignore")

    tally = count_words(io.BytesIO(data), ignore_case=ignore_case, block_size=block_size)

    assert tally.counts == naive_counts(data, ignore_case=ignore_case)
    assert tally.size_bytes == len(data)
    assert tally.sha256 == hashlib.sha256(data).hexdigest()


@given(st.dictionaries(st.text(max_size=2), st.integers(1, 4)), st.integers(0, 12))
def test_top_words_are_the_first_of_all_sorted(counts, n):
    assert top_words(Counter(counts), n) == sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:n]


@given(st.lists(st.one_of(st.binary(max_size=3), TEXTS.map(str.encode)), max_size=6).map(b"".join), st.integers(1, 9))
def test_what_is_not_text_is_refused_at_the_byte_that_decoding_it_whole_names(data, block_size):
    offset = naive_error_offset(data)

    if offset is None:
        count_words(io.BytesIO(data), block_size=block_size)
    else:
        with pytest.raises(NotTextError, match=rf"offset {offset}\b"):
            count_words(io.BytesIO(data), block_size=block_size)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"plain \xff", "is not UTF-8 text (byte 0xff at offset 6)"),
        (b"\xef\xbb\xbf\xff", "is not UTF-8 text (byte 0xff at offset 3)"),
        (b"cut \xe2\x82", "is not UTF-8 text (byte 0xe2 at offset 4)"),
        (b"surrogate \xed\xa0\x80", "is not UTF-8 text (byte 0xed at offset 10)"),
        (b"a\0\xff", "has a NUL byte at offset 1"),
        (b"a\xe2\x82\0", "is not UTF-8 text (byte 0xe2 at offset 1)"),
    ],
)
def test_refusals_say_what_is_wrong(data, message):
    with pytest.raises(NotTextError) as refusal:
        count_words(io.BytesIO(data), block_size=2)

    assert str(refusal.value) == message


def test_a_long_token_takes_linear_time():
    # If each of the 16,000 blocks joined the token anew, this would copy 16 GB.
    token = "\u00e9" * (1 << 20)
    tally = count_words(io.BytesIO(f"a\u2003{token}\u2003a".encode()), block_size=128)

    assert tally.counts == {"a": 2, token: 1}
