"""Random corpora, merges in random shapes, and damaged partials."""

from __future__ import annotations

import gzip
import json
import random
import sys
import zlib
from collections import Counter
from contextlib import contextmanager
from unittest import mock

import pytest
from counting_support import naive_counts, naive_top

from task_script import counting
from task_script.merging import Run
from task_script.partials import HEADER, PartialWriter
from task_script.top_words import main

# Words that are easily ordered wrongly: one is the start of another, and UTF-16 orders the last two the other way.
WORDS = ["a", "aa", "a\x01", "B", "b", "Ba", "longer-word", "longer-words", "\u00e9", "\u0130", "\uffee", "\U0001f600"]

ENCODINGS = ["utf-8", "utf-16", "cp1252"]

# Sorted lines of words and counts, as bytes.
COUNTS = {"a": 3, "longer-word": 1, "zz": 2**40}


@contextmanager
def implementation(*, compiled):
    """Run the block with the counts and merges in C or in Python."""
    with mock.patch.object(counting, "MIN_COMPILED_BYTES", 0 if compiled else sys.maxsize):
        yield


def lines_of(counts):
    """Return the sorted lines of counts."""
    return b"".join(b"%b\t%d\n" % (word.encode(), counts[word]) for word in sorted(counts))


def run_of(lines, block_bytes, name="run"):
    """Return a run of lines, which arrive in blocks."""
    return Run(name, [lines[start : start + block_bytes] for start in range(0, len(lines), block_bytes)])


def partial_of(counts):
    """Return the content of the partial with these counts."""
    written = []
    writer = PartialWriter(written.append)
    writer.write(lines_of(counts))
    writer.close()
    return b"".join(written)


def compressed(lines):
    compressor = zlib.compressobj(1, wbits=31)
    return compressor.compress(lines) + compressor.flush()


def lines_in(path):
    header, lines = path.read_bytes() and gzip.decompress(path.read_bytes()).split(b"\n", 1)
    assert header + b"\n" == HEADER
    return lines


GOOD = partial_of(COUNTS)

NOT_PARTIALS = [
    pytest.param(b"", "cannot be expanded: it is cut off", id="empty"),
    *(
        pytest.param(GOOD[:size], "cannot be expanded: it is cut off", id=f"cut at {size}")
        for size in (1, 9, 30, -8, -1)
    ),
    pytest.param(GOOD[:20] + bytes([GOOD[20] ^ 1]) + GOOD[21:], "cannot be expanded: ", id="flipped bit"),
    pytest.param(GOOD[:-8] + bytes(4) + GOOD[-4:], "cannot be expanded: ", id="wrong checksum"),
    pytest.param(GOOD + b"more", "cannot be expanded: ", id="bytes after the end"),
    pytest.param(b"the cat", "cannot be expanded: ", id="text"),
    pytest.param(compressed(b""), "is not a partial of this version", id="without header"),
    pytest.param(compressed(HEADER[:5]), "is not a partial of this version", id="half a header"),
    pytest.param(compressed(b"topn words 2\na\t1\n"), "is not a partial of this version", id="later version"),
    pytest.param(compressed(HEADER + b"a\t1\nb\t2"), "is cut off", id="half a line"),
    pytest.param(compressed(HEADER + b"\xff\t1\n"), "is not UTF-8 text", id="not UTF-8"),
    *(
        pytest.param(compressed(HEADER + lines), "is not a sorted list of words and counts", id=ascii(lines))
        for lines in (
            b"b\t1\na\t1\n",
            b"a\t1\na\t1\n",
            b"aa\t1\na\t1\n",
            b"a\t0\n",
            b"a\t-1\n",
            b"a\t01\n",
            b"a\t+1\n",
            b"a\t1_0\n",
            b"a\t1 \n",
            b"a\t1\t1\n",
            b"a\t\n",
            b"a\n",
            b"\t1\n",
            b"\n",
            b"a b\t1\n",
            b"a\t9223372036854775808\n",
            b"a\t18446744073709551617\n",
            b"a\t" + b"9" * 5000 + b"\n",
            HEADER,
        )
    ),
]


def check_not_partial(folder, capsys, content, message, *, compiled):
    """Check that each command rejects a damaged partial by name, and writes nothing."""
    (folder / "good.gz").write_bytes(GOOD)
    (folder / "bad\n.gz").write_bytes(content)
    for option in ("--merge", "--corpus"):
        with implementation(compiled=compiled):
            assert main([option, "out", "good.gz", "bad\n.gz", "good.gz"]) == 1
        assert capsys.readouterr().err.startswith(f"input error: bad\\n.gz {message}")
        assert sorted(path.name for path in folder.iterdir()) == ["bad\n.gz", "good.gz"]


def check_corpus(folder, seed, *, compiled):
    """Count the files of a random corpus, merge their partials in random shapes, and check all against other counts."""
    chance = random.Random(seed)
    ignore_case, encoding, num_words = chance.random() < 0.5, chance.choice(ENCODINGS), chance.choice([1, 3, 1000])
    options = ["--encoding", encoding, *(["--ignore-case"] if ignore_case else [])]
    expected = Counter()
    partials = []
    for number in range(chance.randint(1, 5)):
        words = chance.choices(WORDS, k=chance.randint(0, 30))
        text = " ".join(f"{word}{chance.choice(['', '', ',', '1', '22'])}" for word in words)
        data = text.encode(encoding, "ignore")
        (folder / f"{number}.txt").write_bytes(data)
        with implementation(compiled=compiled):
            assert main([f"{number}.txt", "--partial", f"{number}.gz", *options]) == 0
        counts = naive_counts(data.decode(encoding).encode(), ignore_case=ignore_case)
        assert (folder / f"{number}.gz").read_bytes() == partial_of(counts)
        for _ in range(chance.choice([1, 1, 2])):  # A duplicate counts as often as it occurs.
            expected.update(counts)
            partials.append(f"{number}.gz")

    for shape in range(2):
        level = list(partials)
        while len(level) > 1 or shape == 0:
            chance.shuffle(level)
            size = chance.randint(1, len(level))
            name = f"merged{shape}-{chance.randrange(10**9)}.gz"
            with implementation(compiled=compiled):
                assert main(["--merge", name, *level[:size]]) == 0
            level = [*level[size:], name]
            if len(level) == 1:
                break
        assert (folder / level[0]).read_bytes() == partial_of(expected)
    for files in (partials, level):
        with implementation(compiled=compiled):
            assert main(["--corpus", "corpus.json", "--num-words", str(num_words), *files]) == 0
        document = (folder / "corpus.json").read_text("ascii")
        assert json.loads(document) == {
            "words": sum(expected.values()),
            "distinct": len(expected),
            "top": [list(pair) for pair in naive_top(expected, num_words)],
        }
        assert document.count("\n") == 1
