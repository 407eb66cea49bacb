"""The workload of this project: the task script that counts words on a node, what it gives back, and how that is shown.

No other step knows of words.
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.model.files import InputFile
from tasks.model.verdict import Category, FileError, StoredResult
from tasks.text import cut, printable
from tasks.workload.base import NODE_INPUT, Cell, Picture, Workload
from tasks.workload.task_script_package import TaskScriptPackage

OUTPUT = f"{NODE_INPUT}_OUTPUT.json"

# What a cell takes of top words, and the picture of the most frequent ones.
MAX_CELL_LETTERS = 160
MAX_CHARTED_WORDS = 15

# No file has as many bytes. Source: off_t of 64 bits.
MAX_COUNTED = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class WordCounts:
    """What the task script found in one file."""

    sha256: str
    size_bytes: int
    words: int
    distinct: int
    top: tuple[tuple[str, int], ...]


@dataclass(frozen=True, kw_only=True)
class WordCountWorkload(Workload):
    """Count the words of each file.

    Attributes:
        arguments: Options of the task script.
        sources_sha256: Hash of the task script's sources.
    """

    arguments: tuple[str, ...]
    sources_sha256: str

    def file_hashes(self) -> dict[str, str]:
        """Hash the task script's sources, which are the same with a compiler and without one."""
        return dict.fromkeys(self.files, self.sources_sha256)

    def refusal(self, file: InputFile, outputs: Mapping[str, bytes]) -> FileError | None:
        """Refuse what is no output of the task script, or one of another content."""
        try:
            counts = parse_counts(outputs[OUTPUT])
        except (KeyError, ValueError) as error:
            return FileError(category=Category.PROGRAM, message=f"Its output cannot be read: {error}", exit_code=0)
        if counts.sha256 != file.sha256:
            return FileError(category=Category.RESOURCE_FILE, message="The node counted another content", exit_code=0)
        return None

    def documents(self, file: InputFile, result: StoredResult) -> dict[str, bytes]:
        """Give one document for people and one for programs."""
        document = json.dumps(as_json(file, result), ensure_ascii=False) + "\n"
        return {".txt": as_text(result).encode(), ".json": document.encode()}

    def columns(self, result: StoredResult) -> dict[str, Cell]:
        """Give the numbers of words, and as many of the top words as a cell takes; an ellipsis ends what goes on."""
        counts = counts_of(result)
        top: list[tuple[str, str]] = []
        room = MAX_CELL_LETTERS
        for word, count in counts.top:
            if room < 0:
                top.append(("…", ""))
                break
            top.append((cut(printable(word), 40), f"{count:,}"))
            room -= len(" ".join(top[-1])) + 2
        return {"words": counts.words, "distinct": counts.distinct, "top words": top}

    def figures(self, results: Sequence[StoredResult]) -> list[tuple[str, str]]:
        """Add up the words of all files."""
        return [("Words in all files", f"{sum(counts_of(result).words for result in results):,}")]

    def picture(self, results: Sequence[StoredResult]) -> Picture | None:
        """Draw the most frequent words; what is known of each file is its top words only."""
        words = most_frequent_words(results)
        if not words:
            return None
        from tasks.workload.drawing import bars_picture  # noqa: PLC0415 - brings matplotlib: slow

        longest = max(len(counts_of(result).top) for result in results)
        return Picture(
            title="Most frequent words",
            svg=bars_picture([(cut(printable(word), 30), count) for word, count in words]),
            sentence=f"Added up over the files; of each file, its top {longest} are known.",
        )

    def repeat_command(self, file: InputFile) -> str:
        """Give the command that counts the file on this machine."""
        return shlex.join(["python", "-m", "task_script", *self.arguments, "--", file.path])


def word_count_workload(num_words: int, ignore_case: bool) -> WordCountWorkload:
    """Pack the task script into one file that `python3` runs, with the options of this run."""
    package = TaskScriptPackage()
    arguments = ("--num-words", str(num_words), *(["--ignore-case"] if ignore_case else []))
    return WordCountWorkload(
        name="topn",
        command=f'exec python3 "$FILES"/{package.name} {NODE_INPUT} {shlex.join(arguments)}',
        outputs=(OUTPUT,),
        files=package,
        # This node's Python can run it.
        check_command=f'python3 "$FILES"/{package.name} --check',
        done="counted",
        arguments=arguments,
        sources_sha256=package.sources_sha256,
    )


def counts_of(result: StoredResult) -> WordCounts:
    """Read a result that was not refused."""
    return parse_counts(result.outputs[OUTPUT])


def most_frequent_words(results: Sequence[StoredResult]) -> list[tuple[str, int]]:
    """Add up the files' top words, the most frequent first."""
    sums: Counter[str] = Counter()
    for result in results:
        sums.update(dict(counts_of(result).top))
    return sorted(sums.items(), key=lambda pair: (-pair[1], pair[0]))[:MAX_CHARTED_WORDS]


def parse_counts(content: bytes) -> WordCounts:
    """Read the task script's JSON.

    Raises:
        ValueError: It is not what the task script writes.
    """
    try:
        found: Any = json.loads(content)
        return WordCounts(
            sha256=_typed(found["sha256"], str),
            size_bytes=_count(found["bytes"]),
            words=_count(found["words"]),
            distinct=_count(found["distinct"]),
            top=tuple((_word(word), _count(count)) for word, count in found["top"]),
        )
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"not an output of the task script ({error})") from error


def as_json(file: InputFile, result: StoredResult) -> dict[str, Any]:
    """Give a result in the form that programs read."""
    counts = counts_of(result)
    return {
        "file": file.name,
        "sha256": counts.sha256,
        "bytes": counts.size_bytes,
        "words": counts.words,
        "distinct": counts.distinct,
        "top": [list(pair) for pair in counts.top],
    }


def as_text(result: StoredResult) -> str:
    """Give a result in the form that people read, as the task script writes it on the node."""
    top, provenance = counts_of(result).top, result.provenance
    width = len(str(top[0][1])) if top else 0
    words = [f"{count:{width}}  {printable(word)}" for word, count in top] or ["(no words)"]
    places = {
        "Node:": provenance.node_id,
        "Batch task:": provenance.task_id,
        "Job:": provenance.job_id,
        "Pool:": provenance.pool_id,
    }
    return "\n".join([*words, "", *(f"{title:11} {place}" for title, place in places.items()), ""])


def _count(value: Any) -> int:
    """Take a number that nobody has trouble with who adds it up, draws it or writes it down."""
    count: int = _typed(value, int)
    if not 0 <= count <= MAX_COUNTED:
        raise ValueError("a count is below zero, or more than any file has")
    return count


def _word(value: Any) -> str:
    """Take a word that can be written down: JSON can hold half a letter."""
    word: str = _typed(value, str)
    word.encode()
    return word


def _typed(value: Any, kind: type[Any]) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value
