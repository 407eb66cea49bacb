"""The compiled counts against Python, and the fallback to Python without the library."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from itertools import product

import pytest

from task_script.counts import Counts
from task_script.native.compiled import _load_library, create_compiled_counts
from task_script.text import NotTextError

# The limits of the byte ranges in UTF-8, and their neighbours. Source: RFC 3629, section 4
BOUNDARY_BYTES = bytes.fromhex("00017f808f909fa0bfc0c1c2dfe0e1ecedeeeff0f1f3f4f5ff")


def add(counts, *blocks):
    """Add the words of a file to the counts, and return the counts."""
    for _ in counts.add_blocks(blocks, ignore_case=False):
        pass
    return counts


def totals_of(counts):
    totals = counts.totals(10**9)
    return totals.words, totals.distinct, totals.top


def test_boundary_bytes_are_valid_as_in_python():
    for sequence in map(bytes, product(BOUNDARY_BYTES, repeat=4)):
        valid = _load_library().counts_valid_bytes(sequence, 4)
        try:
            agrees = len(sequence[:valid].decode()) > 0 or valid == 0
            (sequence[valid:].partition(b"\0")[0] or sequence[valid : valid + 1]).decode()
        except UnicodeDecodeError as error:
            agrees = valid == 0 or error.start == 0
        assert agrees, sequence


@pytest.mark.parametrize("before", range(9))
def test_valid_text_ends_at_any_invalid_byte(before):
    for bad in (b"\0", b"\x80", b"\xc3", b"\xed\xa0\x80", b"\xff"):
        for middle in (b"", "\u00e9".encode(), "\u3042".encode(), "\U0001f600".encode()):
            text = b"a" * before + middle + b"b" * 11
            assert _load_library().counts_valid_bytes(text, len(text)) == len(text)
            assert _load_library().counts_valid_bytes(text + bad + b"c" * 20, len(text + bad) + 20) == len(text)


def test_characters_separate_words_as_in_python():
    characters = [chr(code) for code in range(1, 0x110000) if not 0xD800 <= code < 0xE000]
    text = "".join(f" x{character}y" for character in characters).encode()
    separating = [character for character in characters if character.isspace() and not character.split()]

    totals = add(create_compiled_counts(), text).totals(2)

    assert totals.top == [("x", len(separating)), ("y", len(separating))]
    assert totals.words == len(characters) + len(separating)
    assert totals.distinct == len(characters) - len(separating) + 2


def test_words_with_equal_prefixes_stay_distinct():
    lengths = range(1, 70)
    text = " ".join(letter * length for letter in "ab" for length in lengths for _ in range(length)).encode()

    for size in (1, 7, 8, 9, 1000):
        blocks = [text[start : start + size] for start in range(0, len(text), size)]
        words, distinct, top = totals_of(add(create_compiled_counts(), *blocks))

        assert (words, distinct) == (2 * sum(lengths), 2 * len(lengths))
        assert dict(top) == {letter * length: length for letter in "ab" for length in lengths}


def test_growing_table_keeps_all_words():
    chance = random.Random(0)
    blocks = [" ".join(str(chance.randrange(50_000)) for _ in range(5000)).encode() + b"\n" for _ in range(20)]

    assert totals_of(add(create_compiled_counts(), *blocks)) == totals_of(add(Counts(), *blocks))


def test_sorted_lines_equal_those_of_python():
    chance = random.Random(0)
    words = [chance.choice(["", "w", "word", "longer-word", "\u00e9", "\U0001f600"]) for _ in range(20_000)]
    text = " ".join(f"{word}{chance.randrange(3000)}" for word in words).encode()
    compiled, python = add(create_compiled_counts(), text), add(Counts(), text)

    for more in (b"", b" later words"):
        assert b"".join(add(compiled, more).pop_lines()) == b"".join(add(python, more).pop_lines())
        assert compiled.totals(3).top == []


@pytest.mark.parametrize("wanted", [1, 2, 3, 500, 999, 1000, 1001])
def test_top_words_are_first_of_all_words(wanted):
    words = [f"w{number}" for number in range(1000) for _ in range(number % 7 + 1)]
    random.Random(0).shuffle(words)
    every = add(Counts(), " ".join(words).encode()).totals(10**9).top

    assert add(create_compiled_counts(), " ".join(words).encode()).totals(wanted).top == every[:wanted]


def test_memory_limit_includes_words_and_table():
    counts = add(create_compiled_counts(), " ".join(map(str, range(100_000))).encode())

    assert counts.exceed(100_000 * 12)
    assert not counts.exceed(2**24)


def test_invalid_text_has_error_of_python():
    with pytest.raises(NotTextError, match=r"byte 0xe2 at offset 5\)"):
        add(create_compiled_counts(), b"a b c\xe2", b"\x82 ")


@pytest.mark.parametrize(
    "prevent",
    [
        "os.uname = lambda: SimpleNamespace(machine='riscv64')",
        "os.memfd_create = Mock(side_effect=PermissionError)",
        "del os.memfd_create",
        "compiled.__loader__ = Mock(get_data=lambda _: b'')",
        "compiled.__loader__ = Mock(get_data=lambda _: b'\x7fELF' + bytes(60))",
        "sys.modules['ctypes'] = None; del sys.modules['task_script.native.compiled']",
        "pass",
    ],
)
def test_without_library_python_counts(package, prevent):
    # A process that has loaded a library gets it again for the same file name, so each case runs in a new process.
    code = (
        "import os, sys; from types import SimpleNamespace; from unittest.mock import Mock;"
        "from task_script.native import compiled; from task_script.counting import _create_counts;"
        f"{prevent}; print(type(_create_counts(10**9)).__name__)"
    )
    environment = {"PYTHONPATH": str(package)}
    kind = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)

    assert kind.stdout.strip() == ("CompiledCounts" if prevent == "pass" else "Counts")


def test_package_and_sources_have_equal_results(package, tmp_path):
    chance = random.Random(1)
    words = ["the", "\u00e9t\u00e9,", "\u732b\u3000", '"quoted"', "e=mc\u00b2"]
    with (tmp_path / "a.txt").open("w", encoding="utf-8") as file:
        file.writelines(f"{chance.choice(words)} {chance.randrange(50_000)}\n" for _ in range(20_000))

    results = []
    for command in ([str(package)], ["-m", "task_script"]):
        for more in ([], ["--memory-mb", "1"]):
            subprocess.run(
                [sys.executable, *command, "a.txt", "--num-words", "1000", *more], cwd=tmp_path, check=True, timeout=60
            )
            results.append(json.loads((tmp_path / "a_OUTPUT.json").read_bytes()))
    assert all(result == results[0] for result in results)
    assert results[0]["words"] == 40_000
