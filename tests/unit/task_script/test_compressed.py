"""Compressed files: the same words as in the text, within limits of size and memory."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import sys

import pytest
from counting_support import BYTES, OPTIONS, TEXTS, count, naive_counts, naive_error_offset, naive_top
from hypothesis import given
from hypothesis import strategies as st

from task_script import compressed
from task_script.text import NotTextError

COMPRESS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
FORMATS = pytest.mark.parametrize("suffix", COMPRESS)
TEXT = b"the cat, the dog\n"


@given(
    st.sampled_from(sorted(COMPRESS)),
    st.lists(st.one_of(TEXTS.map(str.encode), BYTES), min_size=1, max_size=4),
    OPTIONS,
)
def test_members_count_like_their_text(suffix, members, options):
    text = b"".join(members)
    data = b"".join(map(COMPRESS[suffix], members))
    if (offset := naive_error_offset(text)) is not None:
        with pytest.raises(NotTextError, match=rf"offset {offset}\b"):
            count(data, compression=suffix, **options)
        return

    totals, fingerprint = count(data, compression=suffix, **options)

    assert totals.top == naive_top(naive_counts(text, ignore_case=options["ignore_case"]), options["num_words"])
    assert (fingerprint.size_bytes, fingerprint.sha256.digest()) == (len(data), hashlib.sha256(data).digest())


@FORMATS
def test_truncated_file_fails_at_any_length(suffix):
    data = COMPRESS[suffix](TEXT)
    for size in range(len(data)):
        with pytest.raises(NotTextError, match="cannot be expanded: "):
            count(data[:size], compression=suffix)


@FORMATS
def test_damaged_file_has_no_wrong_result(suffix):
    data = COMPRESS[suffix](TEXT)
    results = set()
    for position in range(len(data)):
        damaged = data[:position] + bytes([data[position] ^ 0x10]) + data[position + 1 :]
        try:
            results.add(tuple(count(damaged, compression=suffix)[0].top))
        except NotTextError:
            continue
    # Not every byte of a header has a meaning.
    assert results <= {(("the", 2), ("cat", 1), ("dog", 1))}


@FORMATS
@pytest.mark.parametrize(("end", "fails"), [(bytes(1000), False), (b"\0\0the", True), (b"the", True)])
def test_only_zeros_may_follow_last_member(suffix, end, fails):
    data = COMPRESS[suffix](TEXT) + end
    if fails:
        with pytest.raises(NotTextError, match="cannot be expanded: "):
            count(data, compression=suffix)
    else:
        assert count(data, compression=suffix, block_bytes=7)[0].words == 4


@FORMATS
def test_limit_includes_all_members(suffix):
    data = COMPRESS[suffix](b"word " * 2**18) * 2

    assert count(data, compression=suffix, max_expanded_mb=2.5)[0].words == 2**19
    with pytest.raises(NotTextError, match=r"^expands to more than 2 MB; set a higher --max-expanded-mb$"):
        count(data, compression=suffix, max_expanded_mb=2)


@pytest.mark.parametrize("character", ["a", "é", "\U0001f600"])
def test_endless_word_fails_file(monkeypatch, character):
    monkeypatch.setattr(compressed, "MAX_WORD_MB", 1)
    size = 2**20 // len(character.encode())
    fits = gzip.compress(f"x {character * size}".encode())
    too_long = gzip.compress(f"x\n{character * (size + 3 * 2**16)} x".encode())

    assert count(fits, compression=".gz")[0].words == 2
    with pytest.raises(NotTextError, match=r"^has a word of more than 1 MB$"):
        count(too_long, compression=".gz")


def test_any_white_space_ends_long_word(monkeypatch):
    monkeypatch.setattr(compressed, "MAX_WORD_MB", 1)
    for space in "\t\r\u3000":
        assert count(gzip.compress(f"a{space}".encode() * 2**20), compression=".gz")[0].words == 2**20
        assert count(gzip.compress(space.encode() * 2**21), compression=".gz")[0].words == 0


def test_xz_file_cannot_demand_memory():
    data = lzma.compress(TEXT, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 2**30}])

    with pytest.raises(NotTextError, match="cannot be expanded: Memory usage limit exceeded"):
        count(data, compression=".xz")


@pytest.mark.parametrize(("suffix", "module"), [(".gz", "zlib"), (".bz2", "bz2"), (".xz", "lzma")])
def test_python_without_module_says_what_to_install(monkeypatch, suffix, module):
    data = COMPRESS[suffix](TEXT)
    monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(NotTextError) as error:
        count(data, compression=suffix)

    assert str(error.value) == (
        f"needs the Python module `{module}`: "
        "install a Python with it on the node, for example with `start_commands` of the pool setup"
    )


def test_compressed_text_may_have_any_encoding():
    data = gzip.compress("b кот b".encode("utf-16"))

    assert count(data, compression=".gz", encoding="utf-16", block_bytes=3)[0].top == [("b", 2), ("кот", 1)]
