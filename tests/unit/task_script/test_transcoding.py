"""Other encodings: the same words as in UTF-8."""

from __future__ import annotations

import encodings.aliases

import pytest
from counting_support import OPTIONS, TEXTS, count, naive_counts, naive_top
from hypothesis import given
from hypothesis import strategies as st

from task_script.text import NotTextError
from task_script.transcoding import find_encoding, transcode

NOT_TEXT_ENCODINGS = [
    "hex",
    "rot13",
    "base64",
    "bz2",
    "zip",
    "uu",
    "quopri",
    "klingon",
    "idna",
    "punycode",
    "undefined",
]

ENCODINGS = sorted(
    {
        find_encoding(name)
        for name in {*encodings.aliases.aliases.values(), "utf-8-sig", "unicode_escape"}
        if find_encoding(name) is not None
    }
)


def is_encodable(character, encoding):
    try:
        return character.encode(encoding).decode(encoding) == character
    except UnicodeError:
        return False


@given(
    st.sampled_from(["utf-7", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"]), TEXTS, OPTIONS
)
def test_blocks_count_like_utf8(encoding, text, options):
    data = text.encode(encoding)
    # These encoders write a mark of their own.
    text = text if encoding in {"utf-8-sig", "utf-16", "utf-32"} else text.removeprefix("\ufeff")
    counts = naive_counts(b"\xef\xbb\xbf" + text.encode(), ignore_case=options["ignore_case"])

    totals, fingerprint = count(data, encoding=find_encoding(encoding), **options)

    assert totals.top == naive_top(counts, options["num_words"])
    assert fingerprint.size_bytes == len(data)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_is_decoded_in_blocks(encoding):
    some = map(chr, [*range(1, 0x180), *range(0x391, 0x460), *range(0x3041, 0x3050), 0x4E00, 0xAC00])
    content = "".join(character for character in some if is_encodable(character, encoding)).encode(encoding)
    for size in (1, 2, 3, 7):
        blocks = (content[start : start + size] for start in range(0, len(content), size))
        assert b"".join(transcode(blocks, encoding)).decode("utf-8-sig") == content.decode(encoding)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
@pytest.mark.parametrize("order", ["le", "be"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_byte_order_is_found(encoding, order, mark):
    data = f"{mark}b кот b".encode(f"{encoding}-{order}")
    name = encoding if mark or order == "le" else f"{encoding}-{order}"

    assert count(data, encoding=name, block_bytes=1)[0].top == [("b", 2), ("кот", 1)]


@pytest.mark.parametrize(
    ("encoding", "data", "message"),
    [
        ("ascii", b"plain \xff", "is not ascii text (byte 0xff at offset 6)"),
        ("cp1252", b"plain \x81", "is not cp1252 text (byte 0x81 at offset 6)"),
        ("shift_jis", b"cut \x81", "is not shift_jis text (byte 0x81 at offset 4)"),
        ("iso2022_jp", "日本".encode("iso2022_jp") + b"\xff", "is not iso2022_jp text (byte 0xff at offset 10)"),
        ("utf-16", "abc".encode("utf-16") + b"\x00", "is not utf-16 text (byte 0x00 at offset 8)"),
        ("utf-16-le", b"a\0\x00\xd8b\0", "is not utf-16-le text (byte 0x00 at offset 2)"),
        ("utf-16-le", "ab\0c".encode("utf-16-le"), "has a NUL character at offset 2 of its text"),
        ("utf-32", "кот\0".encode("utf-32-le"), "has a NUL character at offset 3 of its text"),
        ("utf-7", b"ab+2AA-", "has half a character at offset 2 of its text"),
    ],
)
@pytest.mark.parametrize("block_bytes", [1, 2, 7, 1000])
def test_error_names_first_invalid_byte(encoding, data, message, block_bytes):
    with pytest.raises(NotTextError) as error:
        count(data, encoding=encoding, block_bytes=block_bytes)

    assert str(error.value) == message


def test_endless_sequence_fails_file():
    data = b"a +" + b"ZeVnLIqe" * 2**18

    with pytest.raises(NotTextError, match=r"is not utf-7 text \(a sequence of more than 1 MB at offset 2\)"):
        count(data, encoding="utf-7")


@pytest.mark.parametrize("name", [*NOT_TEXT_ENCODINGS, "", "\0", "\udcff", "é", "../utf_8", "x" * 1000])
def test_codecs_for_other_data_are_rejected(name):
    assert find_encoding(name) is None


@pytest.mark.parametrize(
    ("name", "found"),
    [("UTF8", "utf-8"), ("utf-8-sig", "utf-8"), ("Latin-1", "iso8859-1"), ("U16", "utf-16"), ("utf_7", "utf-7")],
)
def test_spellings_have_one_name(name, found):
    assert find_encoding(name) == found
