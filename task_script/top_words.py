"""Count the top words of text files and write them beside each file, or into a folder."""

# A node starts this program once a file, mostly for a small one: `os.path` is there already, `pathlib` would be loaded.

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
from contextlib import suppress
from typing import Mapping, NamedTuple, Sequence  # noqa: UP035 - Those of collections.abc do not do on 3.8.

from task_script.counting import NotTextError, count_words, top_words

DEFAULT_NUM_WORDS = 3

# The limit of all common file systems for one name.
MAX_NAME_BYTES = 255

# What the node agent tells a Batch task about itself.
PROVENANCE = {
    "Node": "AZ_BATCH_NODE_ID",
    "Batch task": "AZ_BATCH_TASK_ID",
    "Job": "AZ_BATCH_JOB_ID",
    "Pool": "AZ_BATCH_POOL_ID",
}

# Controls, line and paragraph separators, and the surrogates that stand for bytes of a name that are not UTF-8.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class FileFailedError(Exception):
    """A file cannot be counted, or its result not be written; the message is one sentence for people."""


class Summary(NamedTuple):
    """The result of one file, as it is written for programs; `bytes` and `top` are the words of that format."""

    file: str
    sha256: str
    bytes: int
    words: int
    distinct: int
    top: list[tuple[str, int]]


class Outputs(NamedTuple):
    """Where the result of one file goes: for people and for programs."""

    text: str
    json: str


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    A file that fails is named on stderr and does not keep the others from being counted.
    """
    parser = _parser()
    options = parser.parse_args(argv)
    if options.check:
        return 0  # An interpreter that is too old does not get here.
    if not options.files:
        parser.error("name at least one FILE")
    if options.num_words < 1:
        parser.error("--num-words must be at least 1")
    outputs = [output_paths(file, options.output_dir) for file in options.files]
    clash = find_clash(options.files, outputs)
    if clash:
        parser.error(clash)

    status = 0
    try:
        for file, into in zip(options.files, outputs):  # noqa: B905 - `strict` came with 3.10.
            status |= _attempt(file, into, num_words=options.num_words, ignore_case=options.ignore_case)
    except KeyboardInterrupt:
        return 130
    return status


def process_file(file: str, outputs: Outputs, *, num_words: int, ignore_case: bool) -> None:
    """Count one file and write both its outputs, each of them whole or not at all.

    Raises:
        FileFailedError: The file is not text, cannot be read, or the outputs cannot be written.
    """
    summary = _summarize(file, num_words=num_words, ignore_case=ignore_case)
    _write_whole(outputs.text, render_text(summary, os.environ))
    # ASCII, so that any name makes valid JSON; of a byte that is not UTF-8 it has the surrogate that os.fsencode knows.
    _write_whole(outputs.json, json.dumps(summary._asdict()) + "\n")


def render_text(summary: Summary, environ: Mapping[str, str]) -> str:
    """Return the result for people: each word after its count, then where it was counted."""
    width = len(str(summary.top[0][1])) if summary.top else 0
    lines = [f"{count:{width}}  {printable(word)}" for word, count in summary.top] or ["(no words)"]
    title_width = max(map(len, PROVENANCE)) + 1
    places = [
        f"{title + ':':{title_width}} {printable(environ.get(name) or '-')}" for title, name in PROVENANCE.items()
    ]
    return "\n".join([*lines, "", *places, ""])


def output_paths(file: str, output_dir: str | None) -> Outputs:
    """Return where the outputs of `file` go: into `output_dir`, or beside it.

    Of a stem that would make too long a name, the end is replaced by a hash of the file's name.
    """
    folder = os.path.dirname(file) if output_dir is None else output_dir
    name = os.path.basename(file)
    stem = os.path.splitext(name)[0]
    suffixes = Outputs("_OUTPUT.txt", "_OUTPUT.json")
    room = MAX_NAME_BYTES - max(map(len, suffixes))
    if len(os.fsencode(stem)) > room:
        mark = "-" + hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
        while len(os.fsencode(stem)) > room - len(mark):
            stem = stem[:-1]
        stem += mark
    return Outputs(*(os.path.join(folder, stem + suffix) for suffix in suffixes))


def find_clash(files: Sequence[str], outputs: Sequence[Outputs]) -> str | None:
    """Return a sentence about the first output that would overwrite another output, or a file to be read."""
    owners = {os.path.realpath(file): file for file in files}
    for file, paths in zip(files, outputs):  # noqa: B905 - `strict` came with 3.10.
        for path in paths:
            # An output replaces a link of its name, so only its folder is resolved.
            place = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
            if place in owners:
                both = f"{printable(owners[place])} and {printable(file)}"
                return f"{both} need other names or another folder: {printable(path)} would be overwritten"
            owners[place] = file
    return None


def printable(text: str) -> str:
    """Escape what would break a line, steer a terminal or have no encoding."""
    return _UNPRINTABLE.sub(lambda match: ascii(match.group())[1:-1], text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="task_script", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "files", metavar="FILE", nargs="*", help="UTF-8 text; its results go to <stem>_OUTPUT.txt and .json"
    )
    parser.add_argument("--num-words", metavar="N", type=int, default=DEFAULT_NUM_WORDS, help="default: %(default)s")
    parser.add_argument("--ignore-case", action="store_true", help="count words as one that differ only in case")
    parser.add_argument("--output-dir", metavar="DIR", help="write there, not beside FILE; made if it is missing")
    parser.add_argument("--check", action="store_true", help="only say whether this interpreter will do")
    return parser


def _attempt(file: str, outputs: Outputs, *, num_words: int, ignore_case: bool) -> int:
    try:
        process_file(file, outputs, num_words=num_words, ignore_case=ignore_case)
    except FileFailedError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _summarize(file: str, *, num_words: int, ignore_case: bool) -> Summary:
    try:
        # Unbuffered: the blocks are large already.
        with open(file, "rb", buffering=0) as stream:
            counts, size_bytes, sha256 = count_words(stream, ignore_case=ignore_case)
        return Summary(file, sha256, size_bytes, sum(counts.values()), len(counts), top_words(counts, num_words))
    except NotTextError as error:
        raise FileFailedError(f"input error: {printable(file)} {error}") from error
    except OSError as error:
        raise FileFailedError(f"input error: {printable(file)} cannot be read: {error.strerror}") from error
    except MemoryError as error:
        raise FileFailedError(f"input error: {printable(file)} has more words than fit in memory") from error


def _write_whole(path: str, text: str) -> None:
    """Write a file under another name in its folder, then move it into place."""
    folder = os.path.dirname(path)
    # A name of its own: two processes may be writing the same output, and the last one whole wins.
    temporary = os.path.join(folder, f".topn-{os.urandom(8).hex()}.tmp")
    try:
        if folder:
            os.makedirs(folder, exist_ok=True)
        try:
            with open(temporary, "xb") as stream:
                stream.write(text.encode())
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise FileFailedError(f"output error: {printable(path)} cannot be written: {error.strerror}") from error
