"""The arguments of the `topn` command."""

from __future__ import annotations

import argparse
import re
from datetime import timedelta
from typing import NoReturn

from flows.cli.exit_status import EXIT_USAGE
from flows.console import say
from tasks.model.chunks import MAX_FILES_PER_TASK
from tasks.model.pool import POOL_ID_PATTERN


class _Parser(argparse.ArgumentParser):
    """Refuse bad usage with one sentence."""

    def error(self, message: str) -> NoReturn:
        say(f"{self.prog}: {message}; see {self.prog} --help.")
        raise SystemExit(EXIT_USAGE)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    parser = _Parser(prog="topn", description="Count the top N words of many text files on Azure Batch.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    run_parser = commands.add_parser(
        "run",
        help="run the flow here and now",
        description="Count the top N words of each INPUT. Without TOPN_BATCH_ENDPOINT, on a local Azure.",
    )
    plan_parser = commands.add_parser(
        "plan",
        help="say what a run would do",
        description="Say which INPUTs are new, unchanged or refused, and what a run would add; create nothing.",
    )
    for command in (run_parser, plan_parser):
        command.add_argument(
            "inputs", nargs="+", metavar="INPUT", help="a text file, or a pattern such as 'data/*.txt'"
        )
        command.add_argument("-n", "--num-words", type=_positive, default=3, metavar="N", help="words a file (3)")
        command.add_argument("--ignore-case", action="store_true", help='take "The" and "the" for one word')
        command.add_argument(
            "--files-per-task",
            type=_files_per_task,
            metavar="K",
            help="files that share a Batch task; auto: one, and more where there are very many (auto)",
        )
        command.add_argument("--refresh", action="store_true", help="count files whose result is known, too")
    run_parser.add_argument("--output", default="results", metavar="DIR", help="where the outputs go (results)")
    run_parser.add_argument("--report", metavar="DIR", help="write the run's page, report.html, there")
    run_parser.add_argument("--keep-containers", action="store_true", help="leave the blob containers in place")
    run_parser.add_argument("--keep-job", action="store_true", help="leave the job in place")
    run_parser.add_argument("--keep-pool", action="store_true", help="leave the run's pool in place")
    run_parser.add_argument("--ask", action="store_true", help="ask at the end whether to delete job and pool")
    run_parser.add_argument("--json", action="store_true", help="print the results as one JSON object")
    check_parser = commands.add_parser(
        "check",
        help="say whether Azure can be used",
        description="Say whether the Azure that a run would use can be used, and what to do where not; create nothing.",
    )
    for command in (run_parser, check_parser):
        command.add_argument("--pool-id", type=_pool_id, metavar="ID", help="use this existing pool")
        command.add_argument("--pool", metavar="FILE", help="how the pool's nodes are set up, as YAML or JSON")
    sweep_parser = commands.add_parser(
        "sweep",
        help="delete what dead runs left behind",
        description="Delete pools, jobs and containers of runs that are past their deadline, or have ended.",
    )
    sweep_parser.add_argument(
        "--older-than",
        type=_duration,
        default=timedelta(0),
        metavar="TIME",
        help="leave alone what died since, for example 2h",
    )
    sweep_parser.add_argument("--dry-run", action="store_true", help="only print what is left behind")
    return parser


def _duration(text: str) -> timedelta:
    match = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 30m, 2h or 1d")
    unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[match.group(2)]
    return timedelta(**{unit: int(match.group(1))})


def _files_per_task(text: str) -> int | None:
    if text == "auto":
        return None
    number = _positive(text)
    if number > MAX_FILES_PER_TASK:
        raise argparse.ArgumentTypeError(f"{text!r} is more than {MAX_FILES_PER_TASK}")
    return number


def _pool_id(text: str) -> str:
    if not re.fullmatch(POOL_ID_PATTERN, text):
        raise argparse.ArgumentTypeError(f"{text!r} is not of 1 to 64 letters, digits, - and _")
    return text


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return number
