"""The arguments of the `topn` command."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from datetime import timedelta
from importlib import metadata
from typing import Any, NoReturn

from pydantic import TypeAdapter, ValidationError

from flows.cli.exit_status import EXIT_USAGE
from flows.console import print_message
from tasks.model.parameters import (
    DEFAULT_BLOCK,
    DEFAULT_NUM_WORDS,
    DEFAULT_OUTPUT_FOLDER,
    DEFAULT_TIMEOUT_MINUTES,
    BlockName,
    CostLimit,
    FilesPerTask,
    NodePrice,
    NotEmpty,
    Positive,
    TaskMinutes,
    TimeoutMinutes,
    describe_bounds,
)
from tasks.model.pool import DEFAULT_POOL, POOL_ID_PATTERN, NodeCount, SlotCount, SpotNodeCount, VmSize
from tasks.workload.word_counts import DEFAULT_ENCODING, DEFAULT_MAX_EXPANDED_MB

DEFAULT_LISTED_RUNS = 20


class _Parser(argparse.ArgumentParser):
    """An argument parser that reports a usage error in one line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, add_help=False)
        self.add_argument("-h", "--help", action="help", help="Print this help.")

    def error(self, message: str) -> NoReturn:
        print_message(f"{self.prog}: {message}. Run `{self.prog} --help` for usage.")
        raise SystemExit(EXIT_USAGE)


def build_parser() -> argparse.ArgumentParser:
    """Create the parser of `topn` and its subcommands. The flow's parameters have the same names, defaults and bounds."""
    parser = _Parser(
        prog="topn",
        description="Count the most frequent words of many text files on Azure Batch, one Batch task per file.",
        epilog="Run `topn COMMAND --help` for the options of a command.",
    )
    parser.add_argument("--version", action="version", version=f"topn {_version()}", help="Print the version of topn.")
    commands = parser.add_subparsers(
        title="commands", dest="command", required=True, metavar="COMMAND", parser_class=_Parser
    )
    run_parser = commands.add_parser(
        "run",
        help="Count the words of files.",
        description="Count the most frequent words of each INPUT. Start a local Azure if none is configured.",
    )
    plan_parser = commands.add_parser(
        "plan",
        help="Show what a run would do.",
        description="List the new, unchanged and invalid INPUTs, and what a run would create. Nothing is created.",
    )
    check_parser = commands.add_parser(
        "check",
        help="Check the Azure accounts.",
        description="Check the configured Azure accounts, and print how to fix each problem. Nothing is created.",
    )
    sweep_parser = commands.add_parser(
        "sweep",
        help="Delete what dead runs left behind.",
        description="Delete the pools, jobs and containers of runs that ended or are past their deadline.",
    )
    log_parser = commands.add_parser(
        "log",
        help="Show what past runs did.",
        description="List past runs, show what one RUN did, or compare two. Runs that wrote no outputs are not listed.",
    )
    for command in (run_parser, plan_parser):
        _add_inputs(command)
        _add_words(command)
        _add_outputs(command)
    for command in (run_parser, plan_parser, check_parser):
        _add_nodes(command)
    _add_json(check_parser.add_argument_group("outputs"))
    for command in (run_parser, plan_parser):
        _add_limits(command, is_run=command is run_parser)
    _add_end(run_parser)
    _add_sweep(sweep_parser)
    _add_log(log_parser)
    for command in (run_parser, check_parser, sweep_parser, log_parser):
        command.add_argument_group("Azure").add_argument(
            "--azure-block",
            type=_within(BlockName),
            default=DEFAULT_BLOCK,
            metavar="NAME",
            help="Use the accounts in this Prefect block of the type topn-azure (default: %(default)s).",
        )
    return parser


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("inputs")
    group.add_argument(
        "inputs",
        nargs="+",
        type=_within(NotEmpty),
        metavar="INPUT",
        help="A text file, a folder, or a pattern such as 'data/*.txt' or 'az://texts/**/*.txt'.",
    )
    group.add_argument(
        "--exclude",
        action="append",
        type=_within(NotEmpty),
        default=[],
        metavar="PATTERN",
        help="Leave out files with these names, such as 'drafts/**'. May be repeated.",
    )
    group.add_argument(
        "--root",
        action="append",
        type=_within(NotEmpty),
        default=[],
        metavar="DIR",
        help="Start the names of files at this folder (default: that of each INPUT). May be repeated.",
    )
    group.add_argument(
        "--encoding",
        type=_within(NotEmpty),
        default=DEFAULT_ENCODING,
        metavar="NAME",
        help="Decode the files with this text encoding of Python (default: %(default)s).",
    )
    group.add_argument(
        "--max-expanded-mb",
        type=_within(Positive),
        default=DEFAULT_MAX_EXPANDED_MB,
        metavar="MB",
        help="Limit the decompressed size of each .gz, .bz2, .xz or .zst file (default: %(default)s).",
    )


def _add_words(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("words")
    group.add_argument(
        "-n",
        "--num-words",
        type=_within(Positive),
        default=DEFAULT_NUM_WORDS,
        metavar="N",
        help="Find this number of words per file (default: %(default)s).",
    )
    group.add_argument("--ignore-case", action="store_true", help='Count "The" and "the" as one word.')
    group.add_argument(
        "--no-corpus",
        dest="corpus",
        action="store_false",
        help="Do not count the most frequent words of all files together.",
    )
    group.add_argument("--refresh", action="store_true", help="Also count files that have a stored result.")


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("outputs")
    group.add_argument(
        "--output",
        type=_within(NotEmpty),
        default=DEFAULT_OUTPUT_FOLDER,
        metavar="DIR",
        help="Write the outputs to this folder, or to az://CONTAINER/PATH (default: %(default)s).",
    )
    group.add_argument(
        "--table",
        type=_within(NotEmpty),
        metavar="FILE",
        help="Also write all words to this file: .csv, .jsonl or .parquet.",
    )
    group.add_argument(
        "--report",
        type=_within(NotEmpty),
        metavar="DIR",
        help="Also write a page about the run, report.html, to this folder or place.",
    )
    _add_json(group)


def _add_json(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--json", action="store_true", help="Print one JSON object.")


def _add_nodes(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("nodes")
    group.add_argument(
        "--nodes",
        type=_within(NodeCount),
        default=DEFAULT_POOL.nodes,
        metavar="N",
        help="Start at most this number of dedicated nodes (default: %(default)s).",
    )
    group.add_argument(
        "--spot-nodes",
        type=_within(SpotNodeCount),
        default=DEFAULT_POOL.spot_nodes,
        metavar="N",
        help="Start at most this number of spot nodes first, which are cheaper and can be evicted (default: %(default)s).",
    )
    group.add_argument(
        "--vm-size",
        type=_within(VmSize),
        default=DEFAULT_POOL.vm_size,
        metavar="SIZE",
        help="Use nodes of this VM size (default: %(default)s).",
    )
    group.add_argument(
        "--slots-per-node",
        type=_within(SlotCount),
        metavar="N",
        help="Run this number of Batch tasks in parallel on each node (default: one per core).",
    )
    group.add_argument("--pool-id", type=_pool_id, metavar="ID", help="Use this existing pool, and do not change it.")
    group.add_argument(
        "--pool", type=_within(NotEmpty), metavar="FILE", help="Set up the nodes as this YAML or JSON file describes."
    )


def _add_limits(parser: argparse.ArgumentParser, *, is_run: bool) -> None:
    group = parser.add_argument_group("limits")
    group.add_argument(
        "--timeout-minutes",
        type=_within(TimeoutMinutes),
        default=DEFAULT_TIMEOUT_MINUTES,
        metavar="MINUTES",
        help="End the run after this time, and its nodes with it (default: %(default)s).",
    )
    group.add_argument(
        "--max-usd",
        type=_within(CostLimit),
        metavar="USD",
        help="End the run earlier, when all of its nodes would have cost this much (default: no limit).",
    )
    group.add_argument(
        "--usd-per-node-hour",
        type=_within(NodePrice),
        metavar="USD",
        help="Set the price of a dedicated node (default: the list price of the VM size, if it is known).",
    )
    if is_run:
        group.add_argument(
            "--task-minutes",
            type=_within(TaskMinutes),
            metavar="MINUTES",
            help="End each Batch task after this time (default: the limit of the run).",
        )
    group.add_argument(
        "--files-per-task",
        type=_files_per_task,
        metavar="K",
        help="Put this number of files into each Batch task (default: auto, which is one up to 1,000 files).",
    )


def _add_end(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("after the run")
    group.add_argument("--keep-containers", action="store_true", help="Do not delete the blob containers.")
    group.add_argument("--keep-job", action="store_true", help="Do not delete the job.")
    group.add_argument("--keep-pool", action="store_true", help="Do not delete the run's pool.")
    group.add_argument("--ask", action="store_true", help="Ask whether to delete the job and the pool.")


def _add_sweep(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what to delete")
    group.add_argument(
        "--older-than",
        type=_duration,
        default=timedelta(0),
        metavar="TIME",
        help="Only delete what runs left behind that died at least this long ago, for example 2h (default: 0s).",
    )
    group.add_argument(
        "--partials",
        action="store_true",
        help="Delete the partials of the corpus that are at least as old as --older-than, which is required.",
    )
    group.add_argument("--dry-run", action="store_true", help="Print what would be deleted, and delete nothing.")


def _add_log(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("runs")
    group.add_argument(
        "runs",
        nargs="*",
        type=_within(NotEmpty),
        metavar="RUN",
        help="The start of the id or the name of a run. With two, the second is compared with the first.",
    )
    group.add_argument(
        "--limit",
        type=_within(Positive),
        default=DEFAULT_LISTED_RUNS,
        metavar="N",
        help="List this number of runs, newest first (default: %(default)s).",
    )
    _add_json(group)


def _version() -> str:
    try:
        return metadata.version("topn")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _duration(text: str) -> timedelta:
    match = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration. Use for example 30m, 2h or 1d")
    unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[match.group(2)]
    return timedelta(**{unit: int(match.group(1))})


def _files_per_task(text: str) -> int | None:
    if text == "auto":
        return None
    number: int = _within(FilesPerTask)(text)
    return number


def _pool_id(text: str) -> str:
    if not re.fullmatch(POOL_ID_PATTERN, text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a pool id. Use 1 to 64 letters, digits, `-` and `_`")
    return text


def _within(kind: Any) -> Callable[[str], Any]:
    """Return a function that parses a text as a value of a parameter's type, which has bounds."""

    def parse(text: str) -> Any:
        try:
            return TypeAdapter(kind).validate_strings(text)
        except ValidationError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {describe_bounds(kind)}") from None

    return parse
