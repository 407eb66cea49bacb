"""The program: count the most frequent words of each file, and write them beside the file or to a folder.

A node starts the program once per file, and most files are small. Importing `json`, `re` or `typing` takes longer than
counting such a file, so this module avoids them.
"""

from __future__ import annotations

import hashlib
import os
import sys

from task_script.counting import count_words
from task_script.options import Options, exit_with_usage, parse
from task_script.text import NotTextError
from task_script.vocabulary import SpillError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Parts of ordinary names and words that `str.isprintable` rejects: spaces of several scripts, and the joiners in Persian
# and Indic words and in emoji.
PRINTABLE = "\u00a0\u200c\u200d\u202f\u3000"

# Suffixes of the names of compressed files.
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")

# Limit of all common file systems.
MAX_NAME_BYTES = 255

# Environment variables of a Batch task.
# Source: https://learn.microsoft.com/azure/batch/batch-compute-node-environment-variables
PROVENANCE = {
    "Node": "AZ_BATCH_NODE_ID",
    "Batch task": "AZ_BATCH_TASK_ID",
    "Job": "AZ_BATCH_JOB_ID",
    "Pool": "AZ_BATCH_POOL_ID",
}


class FileFailedError(Exception):
    """A file cannot be counted, or its result cannot be written. The message names the file and the reason."""


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
    """The paths of the results of one file: text for people, and JSON for programs."""

    def __init__(self, text: str, json: str) -> None:
        self.text = text
        self.json = json


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    If a file fails, print the error and continue with the next file.
    """
    options = parse(sys.argv[1:] if argv is None else argv)
    if options.check:
        return 0  # On an unsupported interpreter, importing the package fails.
    outputs = [output_paths(file, options.output_dir) for file in options.files]
    clash = find_clash(options.files, outputs)
    if clash:
        exit_with_usage(clash)

    exit_code = 0
    try:
        for file, paths in zip(options.files, outputs):  # noqa: B905 - `strict` needs Python 3.10.
            try:
                process_file(file, paths, options)
            except FileFailedError as error:
                print(error, file=sys.stderr)
                exit_code = 1
    except KeyboardInterrupt:
        return 130
    return exit_code


def process_file(file: str, outputs: Outputs, options: Options) -> None:
    """Count one file and write its two outputs, each of them atomically.

    Raises:
        FileFailedError: The file cannot be read or is not text, or an output cannot be written.
    """
    summary = _summarize(file, options)
    _write_atomically(outputs.text, render_text(summary, os.environ))
    _write_atomically(outputs.json, render_json(summary))


def render_json(summary: Summary) -> str:
    """Return the result as one line of JSON in ASCII."""
    top = ", ".join(f"[{_quote(word)}, {count}]" for word, count in summary.top)
    return (
        f'{{"file": {_quote(summary.file)}, "sha256": "{summary.sha256}", "bytes": {summary.size_bytes}, '
        f'"words": {summary.words}, "distinct": {summary.distinct}, "top": [{top}]}}\n'
    )


def render_text(summary: Summary, environ: Mapping[str, str]) -> str:
    """Return the result as text: the words with their counts, then the node, Batch task, job and pool."""
    width = len(str(summary.top[0][1])) if summary.top else 0
    lines = [f"{count:{width}}  {printable(word)}" for word, count in summary.top] or ["(no words)"]
    title_width = max(map(len, PROVENANCE)) + 1
    places = [
        f"{title + ':':{title_width}} {printable(environ.get(name) or '-')}" for title, name in PROVENANCE.items()
    ]
    return "\n".join([*lines, "", *places, ""])


def output_paths(file: str, output_dir: str | None) -> Outputs:
    """Return the output paths of a file, in `output_dir` or in the folder of the file.

    If a name would be too long, a hash of the file name replaces the end of the stem.
    """
    folder = os.path.dirname(file) if output_dir is None else output_dir
    name = os.path.basename(file)
    stem = os.path.splitext(name)[0]
    max_stem_bytes = MAX_NAME_BYTES - len("_OUTPUT.json")
    if len(os.fsencode(stem)) > max_stem_bytes:
        suffix = "-" + hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
        while len(os.fsencode(stem)) > max_stem_bytes - len(suffix):
            stem = stem[:-1]
        stem += suffix
    base = os.path.join(folder, stem)
    return Outputs(f"{base}_OUTPUT.txt", f"{base}_OUTPUT.json")


def find_clash(files: Sequence[str], outputs: Sequence[Outputs]) -> str | None:
    """Return an error message if an output would overwrite another output or an input."""
    owners = {os.path.realpath(file): file for file in files}
    for file, paths in zip(files, outputs):  # noqa: B905 - `strict` needs Python 3.10.
        for path in (paths.text, paths.json):
            # Writing an output replaces a symbolic link of the same name, so only its folder is resolved.
            resolved = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
            if resolved in owners:
                both = f"{printable(owners[resolved])} and {printable(file)}"
                return f"{both} need different names or folders: {printable(path)} would be overwritten"
            owners[resolved] = file
    return None


def printable(text: str) -> str:
    """Escape line breaks, control characters, invisible characters, and characters that cannot be encoded."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character in PRINTABLE else ascii(character)[1:-1] for character in text
    )


def _quote(text: str) -> str:
    """Return a JSON string. A byte of a file name that is not UTF-8 becomes a surrogate, as in `os.fsdecode`."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    import json  # noqa: PLC0415 - See the module docstring.

    return json.dumps(text)


def _summarize(file: str, options: Options) -> Summary:
    try:
        with open(file, "rb", buffering=0) as stream:
            totals, fingerprint = count_words(
                stream,
                num_words=options.num_words,
                ignore_case=options.ignore_case,
                memory_mb=options.memory_mb,
                encoding=options.encoding,
                compression=next((suffix for suffix in COMPRESSIONS if file.endswith(suffix)), ""),
                max_expanded_mb=options.max_expanded_mb,
            )
    except NotTextError as error:
        raise FileFailedError(f"input error: {printable(file)} {error}") from error
    except SpillError as error:
        raise FileFailedError(f"{printable(file)} cannot be counted: {error}") from error
    except OSError as error:
        raise FileFailedError(f"input error: {printable(file)} cannot be read: {error.strerror}") from error
    except MemoryError as error:
        raise FileFailedError(
            f"input error: {printable(file)} does not fit in memory; set a lower --memory-mb"
        ) from error
    sha256 = fingerprint.sha256.hexdigest()
    return Summary(file, sha256, fingerprint.size_bytes, totals.words, totals.distinct, totals.top)


def _write_atomically(path: str, text: str) -> None:
    """Write a temporary file in the same folder, then rename it."""
    folder = os.path.dirname(path)
    # The name is unique, because two processes may write the same output. The last one wins.
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
