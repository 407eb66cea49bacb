"""Count the most frequent words of all texts in a folder in other ways than topn's.

    python corpus_way.py WAY FOLDER OUTPUT NUMBER

writes the words and their counts as JSON. WAY is `duckdb`, `polars`, `multiprocessing`, or `exact`, which counts in one process,
writes all words that are as frequent as the last one, and is the reference for the others. All count the words of topn:
sequences between Unicode white space, without ASCII punctuation at either end. The program needs no other module of topn,
so another Python can run it.
"""

from __future__ import annotations

import json
import string
import sys
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from multiprocessing import Pool
from pathlib import Path

# The white space of Python's `str.split`.
SPACE = r"[\s\x0B\x1C-\x1F\x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}]+"

Words = list[tuple[str, int]]


def exact(folder: Path, number: int) -> dict[str, object]:
    """Count in one process."""
    counts: Counter[str] = Counter()
    for path in folder.glob("*.txt"):
        counts += count_file(path)
    last = min((count for _, count in counts.most_common(number)), default=0)
    return {
        "words": counts.total(),
        "distinct": len(counts),
        "top": [(word, count) for word, count in counts.most_common() if count >= last],
    }


def multiprocessing(folder: Path, number: int) -> Words:
    """Count each file in a process of a pool, and add the counts in this one."""
    counts: Counter[str] = Counter()
    with Pool() as pool:
        for found in pool.imap_unordered(count_file, folder.glob("*.txt")):
            counts.update(found)
    return counts.most_common(number)


def count_file(path: Path) -> Counter[str]:
    """Count the words of one file."""
    counts: Counter[str] = Counter()
    with path.open(encoding="utf-8") as file:
        for line in file:
            counts.update(filter(None, (token.strip(string.punctuation) for token in line.split())))
    return counts


def duckdb(folder: Path, number: int) -> Words:
    """Count with DuckDB."""
    query = """
        SELECT word, count(*) AS found FROM (
            SELECT trim(unnest(string_split_regex(content, ?)), ?) AS word FROM read_text(?)
        ) WHERE word <> '' GROUP BY word ORDER BY found DESC, word LIMIT ?
    """
    parameters = [SPACE, string.punctuation, str(folder / "*.txt"), number]
    rows: Words = import_module("duckdb").execute(query, parameters).fetchall()
    return rows


def polars(folder: Path, number: int) -> Words:
    """Count with the streaming engine of Polars, line by line."""
    pl = import_module("polars")
    # No text contains this separator, so each line is one field.
    lines = pl.scan_csv(
        folder / "*.txt",
        has_header=False,
        separator="\x02",
        quote_char=None,
        new_columns=["word"],
        schema_overrides=[pl.String],
    )
    words = lines.select(pl.col("word").str.extract_all(r"\S+").explode().str.strip_chars(string.punctuation))
    counts = words.filter(pl.col("word") != "").group_by("word").agg(pl.len().alias("found"))
    rows: Words = counts.top_k(number, by="found").sort("found", descending=True).collect(engine="streaming").rows()
    return rows


WAYS: dict[str, Callable[[Path, int], object]] = {
    function.__name__: function for function in (exact, multiprocessing, duckdb, polars)
}


def main() -> int:
    """Count, and write the result."""
    way, folder, output, number = sys.argv[1:]
    Path(output).write_text(json.dumps(WAYS[way](Path(folder), int(number))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
