"""The word count workload: the task script that runs on a node, its output, and the presentation of the counts.

The steps do not depend on this module.
"""

from __future__ import annotations

import codecs
import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tasks.errors import UsageError
from tasks.model.files import InputFile
from tasks.model.verdict import Category, FileError, StoredResult
from tasks.text import printable, shorten
from tasks.workload.base import NODE_INPUT, Cell, Corpus, Merge, Picture, Results, Row, Workload, copy_command
from tasks.workload.task_script_package import TaskScriptPackage

OUTPUT = f"{NODE_INPUT}_OUTPUT.json"
PARTIAL = "words.gz"
CORPUS_OUTPUT = "corpus.json"

# Suffixes of compressed files. On the node, the name of a file shows its compression, and the outputs, whose names have no
# such suffix, do not match the pattern of the command.
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
NODE_INPUT_PREFIX = f"{NODE_INPUT}."

# The defaults of the task script. They are no part of its command line, so that results stay the same.
DEFAULT_ENCODING = "utf-8"
DEFAULT_MAX_EXPANDED_MB = 10_000

# Text encodings of Python that need a whole file at once, or that decode nothing.
NOT_FOR_FILES = ("idna", "punycode", "undefined")

# Limits of the top words in a table cell, and of the words in the chart.
MAX_CELL_CHARACTERS = 160
MAX_CHARTED_WORDS = 15

# Limits of the words of the corpus on the terminal, and in a table.
MAX_LINE_WORDS = 5
MAX_CORPUS_ROWS = 50

# No file has more bytes than a 64-bit off_t can hold.
MAX_COUNT = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class WordCounts:
    """The counts of one file, as reported by the task script."""

    sha256: str
    size_bytes: int
    words: int
    distinct: int
    top: tuple[tuple[str, int], ...]


@dataclass(frozen=True, kw_only=True)
class CorpusCounts:
    """The counts of all files together, as reported by the last merge."""

    words: int
    distinct: int
    top: tuple[tuple[str, int], ...]


@dataclass(frozen=True, kw_only=True)
class WordCountWorkload(Workload):
    """The workload that counts the words of each file.

    Attributes:
        arguments: Command-line options of the task script.
        counting_arguments: Those of them that the counts depend on.
        sources_sha256: Hash of the task script's sources.
    """

    arguments: tuple[str, ...]
    counting_arguments: tuple[str, ...]
    sources_sha256: str

    @property
    def sha256(self) -> str:
        """Hash of everything that a result depends on, except the input file. Partials do not change the result."""
        return self.hash_of(shlex.join(self.arguments))

    @property
    def partial_sha256(self) -> str:
        """Hash of everything that a partial depends on, except the input file."""
        return self.hash_of(shlex.join(self.counting_arguments))

    def file_hashes(self) -> dict[str, str]:
        """Return the hash of the task script's sources, which is the same for compiled and pure Python packages."""
        return dict.fromkeys(self.files, self.sources_sha256)

    def node_input(self, name: str) -> str:
        """Return a name with the suffix of the file's compression, or with .txt."""
        return NODE_INPUT + next((suffix for suffix in COMPRESSIONS if name.endswith(suffix)), ".txt")

    def output_error(self, file: InputFile, outputs: Mapping[str, bytes]) -> FileError | None:
        """Return an error if the output is not valid, or does not belong to this content."""
        try:
            counts = parse_counts(outputs[OUTPUT])
        except (KeyError, ValueError) as error:
            return FileError(category=Category.PROGRAM, message=f"The output cannot be read: {error}", exit_code=0)
        if counts.sha256 != file.sha256:
            return FileError(category=Category.RESOURCE_FILE, message="The node counted different content", exit_code=0)
        return None

    @property
    def keeps_outputs_remote(self) -> bool:
        """False: the documents are made from the outputs."""
        return False

    def documents(self, file: InputFile, result: StoredResult) -> dict[str, bytes]:
        """Return a text document for people and a JSON document for programs."""
        document = json.dumps(as_json(file, result), ensure_ascii=False) + "\n"
        return {".txt": as_text(result).encode(), ".json": document.encode()}

    @property
    def suffixes(self) -> tuple[str, ...]:
        """The suffixes of the two documents."""
        return (".txt", ".json")

    @property
    def table_columns(self) -> dict[str, type]:
        """One row per file and top word."""
        return {"file": str, "rank": int, "word": str, "count": int}

    def rows(self, file: InputFile, result: StoredResult) -> Iterator[Row]:
        """Return the top words of a file, most frequent first."""
        for rank, (word, count) in enumerate(counts_of(result).top, 1):
            yield file.name, rank, word, count

    def columns(self, file: InputFile, result: StoredResult) -> dict[str, Cell]:
        """Return the word counts and as many top words as fit in a cell; an ellipsis marks omitted words."""
        del file
        counts = counts_of(result)
        top: list[tuple[str, str]] = []
        free = MAX_CELL_CHARACTERS
        for word, count in counts.top:
            if free < 0:
                top.append(("…", ""))
                break
            top.append((shorten(printable(word), 40), f"{count:,}"))
            free -= len(" ".join(top[-1])) + 2
        return {"words": counts.words, "distinct": counts.distinct, "top words": top}

    def figures(self, results: Results) -> list[tuple[str, str]]:
        """Return the total number of words."""
        return [("Words in all files", f"{sum(counts_of(result).words for _, result in results):,}")]

    def picture(self, results: Results, corpus: Corpus | None) -> Picture | None:
        """Return a chart of the most frequent words of all files together."""
        del results
        if corpus is None or not (words := corpus_counts(corpus.result).top[:MAX_CHARTED_WORDS]):
            return None
        from tasks.workload.drawing import bars_picture  # noqa: PLC0415 - imports matplotlib, which is slow

        return Picture(
            title="Most frequent words",
            svg=bars_picture(tuple((shorten(printable(word), 30), count) for word, count in words)),
            sentence=f"Exact counts of all words of {_files(corpus)}.",
        )

    def corpus_error(self, outputs: Mapping[str, bytes]) -> str:
        """Return why the counts of the corpus are not valid, or ""."""
        try:
            parse_corpus(outputs[CORPUS_OUTPUT])
        except (KeyError, ValueError) as error:
            return f"The output of the merge cannot be read: {error}"
        return ""

    def corpus_of_file(self, file: InputFile, result: StoredResult) -> dict[str, bytes]:
        """Return the counts of a single file."""
        del file
        counts = counts_of(result)
        document = {"words": counts.words, "distinct": counts.distinct, "top": counts.top}
        return {CORPUS_OUTPUT: f"{json.dumps(document)}\n".encode()}

    @property
    def corpus_names(self) -> tuple[str, ...]:
        """The names of a text document for people and a JSON document for programs."""
        return () if self.merge is None else ("corpus.txt", "corpus.json")

    def corpus_documents(self, corpus: Corpus) -> dict[str, bytes]:
        """Return both documents. They name the files that failed."""
        counts, document = corpus_counts(corpus.result), corpus_as_json(corpus)
        width = len(f"{counts.top[0][1]}") if counts.top else 0
        lines = [f"{count:{width}}  {printable(word)}" for word, count in counts.top] or ["(no words)"]
        lines += [
            "",
            f"{_totals(corpus)}.",
            *(f"Not included, because it failed: {printable(name)}" for name in corpus.failed),
        ]
        return {
            "corpus.txt": "".join(f"{line}\n" for line in lines).encode(),
            "corpus.json": f"{json.dumps(document, ensure_ascii=False)}\n".encode(),
        }

    def corpus_line(self, corpus: Corpus) -> str:
        """Return the totals and the first words."""
        words = [f"{shorten(printable(word), 40)} {count:,}" for word, count in corpus_counts(corpus.result).top]
        shown = ", ".join([*words[:MAX_LINE_WORDS], *(["…"] if len(words) > MAX_LINE_WORDS else [])])
        return f"{_totals(corpus)}{f': {shown}' if shown else ''}"

    def corpus_rows(self, corpus: Corpus) -> list[dict[str, Cell]]:
        """Return the most frequent words, with the change against the previous run if it had a corpus."""
        before: dict[str, int] | None = None
        with suppress(KeyError, ValueError):
            before = dict(parse_corpus(corpus.previous["corpus.json"]).top)
        return [
            {
                "word": shorten(printable(word), 40),
                "count": count,
                **({} if before is None else {"change": _change(count, before.get(word))}),
            }
            for word, count in corpus_counts(corpus.result).top[:MAX_CORPUS_ROWS]
        ]

    def repeat_command(self, file: InputFile) -> str:
        """Return the shell command that counts the words of a file on this machine."""
        if not file.etag:
            return shlex.join(["python", "-m", "task_script", *self.arguments, "--", file.path])
        copy = self.node_input(file.name)
        count = shlex.join(["python", "-m", "task_script", *self.arguments, "--", copy])
        return f"{copy_command(file, copy)} && {count}"


def word_count_workload(
    num_words: int,
    ignore_case: bool,
    encoding: str = DEFAULT_ENCODING,
    max_expanded_mb: int = DEFAULT_MAX_EXPANDED_MB,
    *,
    corpus: bool = False,
) -> WordCountWorkload:
    """Return the workload that runs the packaged task script with the options of this run.

    With `corpus`, it also counts the words of all files together.

    Raises:
        UsageError: The encoding is unknown, or no encoding of text.
    """
    package = TaskScriptPackage()
    counting = []
    if ignore_case:
        counting.append("--ignore-case")
    if (name := _encoding_name(encoding)) not in {
        DEFAULT_ENCODING,
        "utf-8-sig",
    }:  # A byte order mark is always dropped.
        counting += ["--encoding", name]
    if max_expanded_mb != DEFAULT_MAX_EXPANDED_MB:
        counting += ["--max-expanded-mb", str(max_expanded_mb)]
    top = ["--num-words", str(num_words)]
    # -I and -S: ignore the variables of Python and all packages that are installed on the node.
    program = f'python3 -I -S "$FILES"/{package.name}'
    options = shlex.join([*top, *counting, *(["--partial", PARTIAL] if corpus else [])])
    merge = Merge(
        command=f"exec {program} --merge {PARTIAL} partials/*/{PARTIAL}",
        corpus_command=f"exec {program} --corpus {CORPUS_OUTPUT} {shlex.join(top)} partials/*/{PARTIAL}",
        outputs=(CORPUS_OUTPUT,),
        partial=PARTIAL,
    )
    return WordCountWorkload(
        name="topn",
        command=f"exec {program} {NODE_INPUT_PREFIX}* {options}",
        outputs=(OUTPUT,),
        files=package,
        pack_command=f"exec {program} --pack {NODE_INPUT_PREFIX} {options}",
        # Check that the Python of the node can run the package.
        check_command=f"{program} --check",
        done="counted",
        merge=merge if corpus else None,
        arguments=(*top, *counting),
        counting_arguments=tuple(counting),
        sources_sha256=package.sources_sha256,
    )


def _encoding_name(encoding: str) -> str:
    """Return the name that Python uses for a text encoding.

    Raises:
        UsageError: The encoding is unknown, or no encoding of text.
    """
    try:
        with suppress(UnicodeError):  # One byte is not a character of each encoding.
            b" ".decode(encoding)
        if (name := codecs.lookup(encoding).name) not in NOT_FOR_FILES:
            return name
    except (LookupError, ValueError):
        pass
    raise UsageError(
        f"`{printable(encoding)}` is not a text encoding of Python. Set `--encoding` to one, such as utf-16 or cp1252."
    )


def counts_of(result: StoredResult) -> WordCounts:
    """Return the counts of a valid result."""
    return parse_counts(result.outputs[OUTPUT])


def corpus_counts(result: StoredResult) -> CorpusCounts:
    """Return the counts of a valid corpus."""
    return parse_corpus(result.outputs[CORPUS_OUTPUT])


def parse_corpus(content: bytes) -> CorpusCounts:
    """Parse the counts of a corpus.

    Raises:
        ValueError: The content is not valid output of a merge.
    """
    try:
        document: Any = json.loads(content)
        return CorpusCounts(
            words=_count(document["words"]),
            distinct=_count(document["distinct"]),
            top=tuple((_word(word), _count(count)) for word, count in document["top"]),
        )
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"not valid output of a merge ({error})") from error


def _files(corpus: Corpus) -> str:
    return f"{corpus.file_count:,} {'file' if corpus.file_count == 1 else 'files'}"


def _totals(corpus: Corpus) -> str:
    counts = corpus_counts(corpus.result)
    return f"{counts.words:,} words, {counts.distinct:,} of them distinct, in {_files(corpus)}"


def parse_counts(content: bytes) -> WordCounts:
    """Parse the JSON output of the task script.

    Raises:
        ValueError: The content is not valid output of the task script.
    """
    try:
        document: Any = json.loads(content)
        return WordCounts(
            sha256=_typed(document["sha256"], str),
            size_bytes=_count(document["bytes"]),
            words=_count(document["words"]),
            distinct=_count(document["distinct"]),
            top=tuple((_word(word), _count(count)) for word, count in document["top"]),
        )
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"not valid output of the task script ({error})") from error


def as_json(file: InputFile, result: StoredResult) -> dict[str, Any]:
    """Return a result as JSON data for programs."""
    counts = counts_of(result)
    return {
        "file": file.name,
        "sha256": counts.sha256,
        "bytes": counts.size_bytes,
        "words": counts.words,
        "distinct": counts.distinct,
        "top": [list(pair) for pair in counts.top],
    }


def corpus_as_json(corpus: Corpus) -> dict[str, Any]:
    """Return the corpus as JSON data for programs."""
    counts = corpus_counts(corpus.result)
    return {
        "files": corpus.file_count,
        "failed": list(corpus.failed),
        "words": counts.words,
        "distinct": counts.distinct,
        "top": [list(pair) for pair in counts.top],
    }


def as_text(result: StoredResult) -> str:
    """Format a result as text for people, like the text output of the task script."""
    top, provenance = counts_of(result).top, result.provenance
    width = len(str(top[0][1])) if top else 0
    words = [f"{count:{width}}  {printable(word)}" for word, count in top] or ["(no words)"]
    places = {
        "Node:": provenance.node_id,
        "Batch task:": provenance.task_id,
        "Job:": provenance.job_id,
        "Pool:": provenance.pool_id,
    }
    return "\n".join([*words, "", *(f"{title:11} {printable(place)}" for title, place in places.items()), ""])


def _count(value: Any) -> int:
    """Return a count; reject negative values and values above `MAX_COUNT`, which no file can have."""
    count: int = _typed(value, int)
    if not 0 <= count <= MAX_COUNT:
        raise ValueError(f"count {count} is not between 0 and {MAX_COUNT}")
    return count


def _word(value: Any) -> str:
    """Return a word; raise an error for a lone surrogate, which JSON can contain but UTF-8 cannot."""
    word: str = _typed(value, str)
    word.encode()
    return word


def _typed(value: Any, kind: type[Any]) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{value!r} is not of type {kind.__name__}")
    return value


def _change(count: int, before: int | None) -> str:
    if before is None:
        return "new"
    return f"{count - before:+,}" if count != before else "0"
