"""The program: count the most frequent words of each file, and write them beside the file or to a folder.

A node starts the program once per file, and most files are small. Importing `json`, `re` or `typing` takes longer than
counting such a file, so this module avoids them.
"""

from __future__ import annotations

import hashlib
import os
import sys

from task_script.counting import count_words
from task_script.files import AtomicFile, FileFailedError
from task_script.options import Options, exit_with_usage, parse
from task_script.text import NotTextError, printable
from task_script.vocabulary import SpillError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from task_script.merging import Write

# Suffixes of the names of compressed files.
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")

# The file in the folder of a processed file of a pack, with the exit code and the number of attempts.
EXIT = ".exit"

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
    """The paths of the results of one file: text for people, JSON for programs, and the partial. None is not written."""

    def __init__(self, text: str | None, json: str, partial: str | None = None) -> None:
        self.text = text
        self.json = json
        self.partial = partial


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    If a file fails, print the error and continue with the next file.
    """
    options = parse(sys.argv[1:] if argv is None else argv)
    try:
        if options.check:
            _prepare()
            return 0
        if options.pack is not None:
            return process_pack(options.pack, options)
        if options.merge is not None or options.corpus is not None:
            return _merge(options)
        return _process_files(options)
    except KeyboardInterrupt:
        return 130


def process_pack(prefix: str, options: Options) -> int:
    """Process the file of each folder in the current one as if the program ran there, and return the exit code.

    Only the result for programs is written, because nobody reads the others on a node. The name of the file starts with `prefix`. A folder with a file .exit is finished. A file that the program rejects gets
    one, too, and stderr.txt with the reason. A file that fails for another reason gets none: when it is tried alone, more
    memory may be free.
    """
    exit_code = 0
    for folder in sorted(entry.name for entry in os.scandir() if entry.is_dir()):
        os.chdir(folder)
        names = os.listdir()
        if EXIT not in names:
            status = _process_packed(sorted(name for name in names if name.startswith(prefix)), options)
            exit_code = max(exit_code, status)
        os.chdir("..")
    return exit_code


def process_file(file: str, outputs: Outputs, options: Options) -> None:
    """Count one file and write its outputs, each of them atomically.

    Raises:
        FileFailedError: The file cannot be read or is not text, or an output cannot be written.
    """
    if outputs.partial is None:
        summary = _summarize(file, options)
    else:
        from task_script.partials import PartialWriter  # noqa: PLC0415 - See the docstring of the module.

        with AtomicFile(outputs.partial) as partial:
            writer = PartialWriter(partial.write)
            summary = _summarize(file, options, writer.write)
            writer.close()
    if outputs.text is not None:
        with AtomicFile(outputs.text) as text:
            text.write(render_text(summary, os.environ).encode())
    with AtomicFile(outputs.json) as json:
        json.write(render_json(summary).encode())


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


def output_paths(file: str, output_dir: str | None, partial: str | None = None) -> Outputs:
    """Return the output paths of a file, in `output_dir` or in the folder of the file. `partial` is the name of the partial.

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
    partial_path = None if partial is None else os.path.join(folder, partial)
    return Outputs(f"{base}_OUTPUT.txt", f"{base}_OUTPUT.json", partial_path)


def find_clash(files: Sequence[str], outputs: Sequence[Outputs]) -> str | None:
    """Return an error message if an output would overwrite another output or an input."""
    owners = {os.path.realpath(file): file for file in files}
    for file, paths in zip(files, outputs):  # noqa: B905 - `strict` needs Python 3.10.
        for path in filter(None, (paths.text, paths.json, paths.partial)):
            # Writing an output replaces a symbolic link of the same name, so only its folder is resolved.
            resolved = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
            if resolved in owners:
                both = f"{printable(owners[resolved])} and {printable(file)}"
                return f"{both} need different names or folders: {printable(path)} would be overwritten"
            owners[resolved] = file
    return None


def _quote(text: str) -> str:
    """Return a JSON string. A byte of a file name that is not UTF-8 becomes a surrogate, as in `os.fsdecode`."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    import json  # noqa: PLC0415 - See the module docstring.

    return json.dumps(text)


def _prepare() -> None:
    """Prepare the packed program for this interpreter. On one that is not supported, importing the package fails."""
    package = getattr(sys.modules[__name__].__loader__, "archive", None)
    if package is not None:
        from task_script.byte_code import add_byte_code  # noqa: PLC0415 - See the docstring of the module.

        add_byte_code(package)


def _process_files(options: Options) -> int:
    outputs = [output_paths(file, options.output_dir, options.partial) for file in options.files]
    clash = find_clash(options.files, outputs)
    if clash:
        exit_with_usage(clash)
    exit_code = 0
    for file, paths in zip(options.files, outputs):  # noqa: B905 - `strict` needs Python 3.10.
        try:
            process_file(file, paths, options)
        except FileFailedError as error:
            print(error, file=sys.stderr)
            exit_code = 1
    return exit_code


def _process_packed(files: list[str], options: Options) -> int:
    """Process the file in the current folder, and return the exit code."""
    status = 1
    try:
        if len(files) != 1:
            return 1
        outputs = output_paths(files[0], options.output_dir, options.partial)
        outputs.text = None
        process_file(files[0], outputs, options)
        status = 0
    except FileFailedError as error:
        if not isinstance(error.__cause__, NotTextError):
            return 1
        for log, content in (("stdout.txt", ""), ("stderr.txt", f"{error}\n")):
            with open(log, "wb") as stream:
                stream.write(content.encode())
    with open(EXIT, "wb") as stream:
        stream.write(b"%d 1\n" % status)
    return status


def _merge(options: Options) -> int:
    from task_script.corpus import write_corpus, write_merged  # noqa: PLC0415 - See the docstring of the module.

    try:
        if options.merge is not None:
            write_merged(options.files, options.merge)
        elif options.corpus is not None:
            write_corpus(options.files, options.corpus, options.num_words)
    except FileFailedError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _summarize(file: str, options: Options, write: Write | None = None) -> Summary:
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
                write=write,
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
