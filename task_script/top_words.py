"""Count the top words of text files and write them beside each file, or into a folder."""

# A node starts this program once a file, mostly for a small one: `json`, `re`, `typing` and what they load would take
# longer to import than the file to count.

from __future__ import annotations

import hashlib
import os
import sys

from task_script.counting import CountingError, NotTextError, count_words
from task_script.options import Options, parse, refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# The limit of all common file systems for one name.
MAX_NAME_BYTES = 255

# What the node agent tells a Batch task about itself.
PROVENANCE = {
    "Node": "AZ_BATCH_NODE_ID",
    "Batch task": "AZ_BATCH_TASK_ID",
    "Job": "AZ_BATCH_JOB_ID",
    "Pool": "AZ_BATCH_POOL_ID",
}


class FileFailedError(Exception):
    """A file cannot be counted, or its result not be written; the message is one sentence for people."""


class Summary:
    """The result of one file."""

    def __init__(
        self, file: str, sha256: str, size_bytes: int, words: int, distinct: int, top: list[tuple[str, int]]
    ) -> None:
        self.file = file
        self.sha256 = sha256
        self.size_bytes = size_bytes
        self.words = words
        self.distinct = distinct
        self.top = top


class Outputs:
    """Where the result of one file goes: for people and for programs."""

    def __init__(self, text: str, json: str) -> None:
        self.text = text
        self.json = json


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    A file that fails is named on stderr and does not keep the others from being counted.
    """
    options = parse(sys.argv[1:] if argv is None else argv)
    if options.check:
        return 0  # An interpreter that is too old does not get here.
    outputs = [output_paths(file, options.output_dir) for file in options.files]
    clash = find_clash(options.files, outputs)
    if clash:
        refuse(clash)

    status = 0
    try:
        for file, into in zip(options.files, outputs):  # noqa: B905 - `strict` came with 3.10.
            try:
                process_file(file, into, options)
            except FileFailedError as error:
                print(error, file=sys.stderr)
                status = 1
    except KeyboardInterrupt:
        return 130
    return status


def process_file(file: str, outputs: Outputs, options: Options) -> None:
    """Count one file and write both its outputs, each of them whole or not at all.

    Raises:
        FileFailedError: The file is not text, cannot be read, or the outputs cannot be written.
    """
    summary = _summarize(file, options)
    _write_whole(outputs.text, render_text(summary, os.environ))
    _write_whole(outputs.json, render_json(summary))


def render_json(summary: Summary) -> str:
    """Return the result for programs, in ASCII."""
    top = ", ".join(f"[{_quoted(word)}, {count}]" for word, count in summary.top)
    return (
        f'{{"file": {_quoted(summary.file)}, "sha256": "{summary.sha256}", "bytes": {summary.size_bytes}, '
        f'"words": {summary.words}, "distinct": {summary.distinct}, "top": [{top}]}}\n'
    )


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
    room = MAX_NAME_BYTES - len("_OUTPUT.json")
    if len(os.fsencode(stem)) > room:
        mark = "-" + hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
        while len(os.fsencode(stem)) > room - len(mark):
            stem = stem[:-1]
        stem += mark
    base = os.path.join(folder, stem)
    return Outputs(f"{base}_OUTPUT.txt", f"{base}_OUTPUT.json")


def find_clash(files: Sequence[str], outputs: Sequence[Outputs]) -> str | None:
    """Return a sentence about the first output that would overwrite another output, or a file to be read."""
    owners = {os.path.realpath(file): file for file in files}
    for file, paths in zip(files, outputs):  # noqa: B905 - `strict` came with 3.10.
        for path in (paths.text, paths.json):
            # An output replaces a link of its name, so only its folder is resolved.
            place = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
            if place in owners:
                both = f"{printable(owners[place])} and {printable(file)}"
                return f"{both} need other names or another folder: {printable(path)} would be overwritten"
            owners[place] = file
    return None


def printable(text: str) -> str:
    """Escape what would break a line, steer a terminal or have no encoding."""
    if text.isprintable():
        return text
    import re  # noqa: PLC0415 - See above.

    # Controls, line and paragraph separators, and the surrogates that stand for bytes of a name that are not UTF-8.
    return re.sub("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", lambda found: ascii(found.group())[1:-1], text)


def _quoted(text: str) -> str:
    """Return a JSON string; of a byte of a name that is not UTF-8 it has the surrogate that `os.fsencode` knows."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    import json  # noqa: PLC0415 - See above.

    return json.dumps(text)


def _summarize(file: str, options: Options) -> Summary:
    try:
        # Unbuffered: the blocks are large already.
        with open(file, "rb", buffering=0) as stream:
            totals, fingerprint = count_words(stream, options)
    except NotTextError as error:
        raise FileFailedError(f"input error: {printable(file)} {error}") from error
    except CountingError as error:
        raise FileFailedError(f"{printable(file)} is not counted: {error}") from error
    except OSError as error:
        raise FileFailedError(f"input error: {printable(file)} cannot be read: {error.strerror}") from error
    except MemoryError as error:
        raise FileFailedError(f"input error: {printable(file)} has more words than fit in memory") from error
    sha256 = fingerprint.sha256.hexdigest()
    return Summary(file, sha256, fingerprint.size_bytes, totals.words, totals.distinct, totals.top)


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
            if os.path.lexists(temporary):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise FileFailedError(f"output error: {printable(path)} cannot be written: {error.strerror}") from error
