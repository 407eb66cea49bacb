"""The arguments of the `topn` command."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from datetime import timedelta
from typing import NoReturn

from flows.cli.exit_status import EXIT_USAGE
from flows.console import print_message
from tasks.model.chunks import MAX_FILES_PER_TASK
from tasks.model.inputs import LocalFiles
from tasks.model.pool import POOL_ID_PATTERN


class _Parser(argparse.ArgumentParser):
    """An argument parser that reports a usage error in one line."""

    def error(self, message: str) -> NoReturn:
        print_message(f"{self.prog}: {message}. Run `{self.prog} --help` for usage.")
        raise SystemExit(EXIT_USAGE)


def build_parser() -> argparse.ArgumentParser:
    """Create the parser of `topn` and its subcommands."""
    parser = _Parser(
        prog="topn",
        description="Count the most frequent words of many text files on Azure Batch, one Batch task per file.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    run_parser = commands.add_parser(
        "run",
        help="count the words of files",
        description="Count the most frequent words of each INPUT. Start a local Azure if none is configured.",
    )
    plan_parser = commands.add_parser(
        "plan",
        help="show what a run would do",
        description="List the new, unchanged and invalid INPUTs, and what a run would create. Nothing is created.",
    )
    for command in (run_parser, plan_parser):
        command.add_argument(
            "inputs", nargs="+", metavar="INPUT", help="text file, folder, or a pattern such as 'data/*.txt'"
        )
        command.add_argument(
            "-n", "--num-words", type=_positive, default=3, metavar="N", help="number of words per file (default: 3)"
        )
        command.add_argument("--ignore-case", action="store_true", help='count "The" and "the" as one word')
        command.add_argument(
            "--encoding", default="utf-8", metavar="NAME", help="text encoding of the files (default: utf-8)"
        )
        command.add_argument(
            "--max-expanded-mb",
            type=_positive,
            default=10_000,
            metavar="MB",
            help="limit of the decompressed size of each .gz, .bz2, .xz or .zst file (default: 10000)",
        )
        command.add_argument(
            "--files-per-task",
            type=_files_per_task,
            metavar="K",
            help="number of files per Batch task (default: auto, one unless there are more than 1,000 files)",
        )
        command.add_argument(
            "--no-corpus",
            dest="corpus",
            action="store_false",
            help="do not count the most frequent words of all files together",
        )
        command.add_argument("--refresh", action="store_true", help="also count files that have a stored result")
        command.add_argument(
            "--output",
            default="results",
            metavar="DIR",
            help="output folder, or az://CONTAINER/PATH (default: results)",
        )
        command.add_argument(
            "--table", metavar="FILE", help="also write all words to this file: .csv, .jsonl or .parquet"
        )
        command.add_argument(
            "--root",
            action="append",
            default=[],
            metavar="DIR",
            help="folder from which names start (repeatable; default: that of each INPUT)",
        )
        command.add_argument(
            "--exclude",
            action="append",
            default=[],
            metavar="PATTERN",
            help="leave out files with these names, such as 'drafts/**' (repeatable)",
        )
    run_parser.add_argument(
        "--report", metavar="DIR", help="write an HTML report, report.html, to this folder or place"
    )
    run_parser.add_argument("--keep-containers", action="store_true", help="do not delete the blob containers")
    run_parser.add_argument("--keep-job", action="store_true", help="do not delete the job")
    run_parser.add_argument("--keep-pool", action="store_true", help="do not delete the run's pool")
    run_parser.add_argument("--ask", action="store_true", help="after the run, ask whether to delete the job and pool")
    run_parser.add_argument("--json", action="store_true", help="print the results as one JSON object")
    check_parser = commands.add_parser(
        "check",
        help="check the Azure accounts",
        description="Check the configured Azure accounts, and print how to fix each problem. Nothing is created.",
    )
    for command in (run_parser, plan_parser, check_parser):
        command.add_argument("--pool-id", type=_pool_id, metavar="ID", help="use this existing pool")
        command.add_argument("--pool", metavar="FILE", help="YAML or JSON file with the setup of the pool's nodes")
    sweep_parser = commands.add_parser(
        "sweep",
        help="delete what dead runs left behind",
        description="Delete the pools, jobs and containers of runs that ended or are past their deadline.",
    )
    sweep_parser.add_argument(
        "--older-than",
        type=_duration,
        default=timedelta(0),
        metavar="TIME",
        help="only delete leftovers of runs that died at least this long ago, for example 2h",
    )
    sweep_parser.add_argument(
        "--partials",
        action="store_true",
        help="delete the partials of the corpus that are at least as old as --older-than, which is required",
    )
    sweep_parser.add_argument("--dry-run", action="store_true", help="print what would be deleted, and delete nothing")
    return parser


def local_files(options: argparse.Namespace, corpus_names: Sequence[str]) -> LocalFiles:
    """Return the inputs and outputs that the arguments name, and the documents of the corpus with these names."""
    return LocalFiles(
        inputs=options.inputs,
        roots=options.root,
        exclude=options.exclude,
        output_folder=options.output,
        table=options.table,
        report_folder=getattr(options, "report", None),
        corpus_names=corpus_names,
    )


def _duration(text: str) -> timedelta:
    match = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration. Use for example 30m, 2h or 1d")
    unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[match.group(2)]
    return timedelta(**{unit: int(match.group(1))})


def _files_per_task(text: str) -> int | None:
    if text == "auto":
        return None
    number = _positive(text)
    if number > MAX_FILES_PER_TASK:
        raise argparse.ArgumentTypeError(f"{text!r} is more than the maximum of {MAX_FILES_PER_TASK}")
    return number


def _pool_id(text: str) -> str:
    if not re.fullmatch(POOL_ID_PATTERN, text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a pool id. Use 1 to 64 letters, digits, `-` and `_`")
    return text


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return number
