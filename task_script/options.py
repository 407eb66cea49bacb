"""The command line. It is parsed by hand, because importing `argparse` takes as long as counting a small file."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

# Enough for the words of 1 GB of English (about 2 million). Several Batch tasks with this limit fit on the smallest
# nodes, and a lower limit is hardly slower.
DEFAULT_MEMORY_MB = 256

DEFAULT_MAX_EXPANDED_MB = 10_000

USAGE = "usage: python3 -m task_script [OPTION]... FILE..."

# Options with a text and with a number.
TEXT_OPTIONS = ("--encoding", "--output-dir", "--partial", "--pack", "--merge", "--corpus")
NUMBER_OPTIONS = ("--num-words", "--memory-mb", "--max-expanded-mb")

HELP = f"""{USAGE}

Count the most frequent words of text files. The results for each FILE are
<stem>_OUTPUT.txt and <stem>_OUTPUT.json. A FILE whose name ends in .gz, .bz2, .xz or
.zst is decompressed.

  --num-words N      number of words to write (default: 3)
  --ignore-case      count words that differ only in case as one word
  --encoding NAME    text encoding of the files (default: utf-8)
  --max-expanded-mb N  limit of the size of each decompressed file (default: {DEFAULT_MAX_EXPANDED_MB})
  --output-dir DIR   folder for the results, created if missing (default: the folder of FILE)
  --memory-mb N      memory limit for the counts (default: {DEFAULT_MEMORY_MB}); larger counts use a temporary file
  --partial NAME     also write all counts of FILE, sorted by word, to NAME in the folder of the results
  --pack PREFIX      process the FILE in each folder below the current one whose name starts with PREFIX,
                     unless the folder contains a file .exit, and write that file with its exit code
  --merge NAME       merge FILEs that --partial or --merge wrote into NAME
  --corpus NAME      merge FILEs that --partial or --merge wrote, and write their totals and most frequent
                     words to NAME as JSON
  --check            only check that this interpreter is supported, and add its byte code to the packed program
  --help             print this help
  --                 treat all following arguments as FILEs"""


class Options:
    """The parsed command line, with the default of each option."""

    def __init__(self) -> None:
        self.num_words = 3
        self.ignore_case = False
        self.memory_mb = DEFAULT_MEMORY_MB
        self.encoding = "utf-8"
        self.max_expanded_mb = DEFAULT_MAX_EXPANDED_MB
        self.output_dir: str | None = None
        self.partial: str | None = None
        self.pack: str | None = None
        self.merge: str | None = None
        self.corpus: str | None = None
        self.check = False
        self.files: list[str] = []


def parse(arguments: Sequence[str]) -> Options:
    """Parse a command line. Wrong usage and `--help` end the program."""
    options = Options()
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if argument == "--":
            options.files += rest
        elif argument == "-" or not argument.startswith("-"):
            options.files.append(argument)
        elif name in TEXT_OPTIONS or name in NUMBER_OPTIONS:
            text = value if equals else next(rest, None)
            if text is None:
                exit_with_usage(f"argument {name}: expected one argument")
            _set(options, name, _parse_value(name, text))
        elif argument in {"--ignore-case", "--check"}:
            _set(options, argument, value=True)
        elif argument in {"-h", "--help"}:
            print(HELP)
            raise SystemExit(0)
        else:
            exit_with_usage(f"unrecognized arguments: {argument!a}")
    _check(options)
    return options


def exit_with_usage(error: str) -> NoReturn:
    """Print the usage and the error, and exit with code 2."""
    print(f"{USAGE}\ntask_script: error: {error}", file=sys.stderr)
    raise SystemExit(2)


def _check(options: Options) -> None:
    """Check that the options fit together."""
    modes = [name for name in ("pack", "merge", "corpus", "check") if getattr(options, name) not in {None, False}]
    if len(modes) > 1:
        exit_with_usage(f"--{modes[0]} and --{modes[1]} exclude each other")
    if options.pack is not None and options.files:
        exit_with_usage("with --pack, name no FILE")
    if not options.files and modes not in (["pack"], ["check"]):
        exit_with_usage("name at least one FILE")
    if options.partial is not None and (len(options.files) > 1 or {"merge", "corpus"} & set(modes)):
        exit_with_usage("--partial needs one FILE or --pack")
    if options.partial is not None and os.path.basename(options.partial) in {"", ".", ".."}:
        exit_with_usage(f"argument --partial: {options.partial!a} is not the name of a file")
    if options.partial is not None and os.path.dirname(options.partial):
        exit_with_usage("argument --partial: leave out the folder, which is that of the results")


def _set(options: Options, name: str, value: object) -> None:
    setattr(options, name[2:].replace("-", "_"), value)


def _parse_value(name: str, text: str) -> int | str:
    if name == "--encoding":
        return _parse_encoding(text)
    if name in TEXT_OPTIONS:
        return text
    try:
        number = int(text)
    except ValueError:
        exit_with_usage(f"argument {name}: invalid int value: {text!a}")
    if number < 1:
        exit_with_usage(f"{name} must be at least 1")
    return number


def _parse_encoding(text: str) -> str:
    from task_script.transcoding import find_encoding  # noqa: PLC0415 - few command lines need it

    encoding = find_encoding(text)
    if encoding is None:
        exit_with_usage(f"argument --encoding: {text!a} is not a text encoding of Python")
    return encoding
