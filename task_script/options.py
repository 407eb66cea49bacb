"""The command line of the task script, read by hand: importing `argparse` takes as long as counting a small file."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

# The words of 1 GB of English, some 2 million; several Batch tasks at once fit on the smallest nodes. Putting more of
# them aside takes hardly longer.
DEFAULT_MEMORY_MB = 256

USAGE = "usage: python3 -m task_script [OPTION]... FILE..."

HELP = f"""{USAGE}

Count the top words of text files (UTF-8) and write those of each to <stem>_OUTPUT.txt and <stem>_OUTPUT.json.

  --num-words N      how many of the top words to write, 3 unless given
  --ignore-case      count words as one that differ only in case
  --output-dir DIR   write there, not beside FILE; made if it is missing
  --processes N      count in N processes; unless given, a large file on the processors that are idle
  --memory-mb N      memory for the counts, {DEFAULT_MEMORY_MB} unless given; the rest goes to a temporary file
  --check            only say whether this interpreter will do
  --help             say this
  --                 what follows is a FILE, whatever it begins with"""


class Options:
    """What to count, and how; the defaults are those of the command line.

    Args:
        num_words: How many top words are wanted.
        ignore_case: Count words that are equal after `str.casefold` as one.
        processes: How many count side by side; None for as many as gain, on processors that nobody is using.
        memory_mb: What the counts of all processes may take, at their largest.
        block_size: Bytes to read at a time. With larger blocks the tokens of one no longer fit in a processor's
            second-level cache, and counting is slower.
    """

    def __init__(
        self,
        num_words: int = 3,
        ignore_case: bool = False,
        processes: int | None = None,
        memory_mb: float = DEFAULT_MEMORY_MB,
        block_size: int = 64 * 1024,
    ) -> None:
        self.num_words = num_words
        self.ignore_case = ignore_case
        self.processes = processes
        self.memory_mb = memory_mb
        self.block_size = block_size
        self.files: list[str] = []
        self.output_dir: str | None = None
        self.check = False


def parse(arguments: Sequence[str]) -> Options:
    """Read a command line; bad usage ends the program, and so does `--help`."""
    options = Options()
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if argument == "--":
            options.files += rest
        elif argument == "-" or not argument.startswith("-"):
            options.files.append(argument)
        elif name in {"--num-words", "--processes", "--memory-mb", "--output-dir"}:
            found = value if equals else next(rest, None)
            if found is None:
                refuse(f"argument {name}: expected one argument")
            setattr(options, name[2:].replace("-", "_"), found if name == "--output-dir" else _count(name, found))
        elif argument in {"--ignore-case", "--check"}:
            setattr(options, name[2:].replace("-", "_"), True)
        elif argument in {"-h", "--help"}:
            print(HELP)
            raise SystemExit(0)
        else:
            refuse(f"unrecognized arguments: {argument!a}")
    if not options.files and not options.check:
        refuse("name at least one FILE")
    return options


def refuse(complaint: str) -> NoReturn:
    """End the program for bad usage."""
    print(f"{USAGE}\ntask_script: error: {complaint}", file=sys.stderr)
    raise SystemExit(2)


def _count(name: str, value: str) -> int:
    try:
        number = int(value)
    except ValueError:
        refuse(f"argument {name}: invalid int value: {value!a}")
    if number < 1:
        refuse(f"{name} must be at least 1")
    return number
