"""The `topn` command."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import UUID

from flows.check_command import print_findings, read_pool_options
from flows.connect import connected, prefect_api_url, require_reachable_prefect, use_up
from flows.display import ask, print_failed_json, print_json, print_table, progress_shown, say
from flows.plan_command import print_plan, sort_inputs
from tasks.errors import ConfigurationError, FilesFailedError, ServiceError, TopnError, UsageError
from tasks.inputs import find_inputs
from tasks.models import DEFAULT_POOL, MOST_FILES_PER_TASK, POOL_ID, Keep, PoolOptions
from tasks.names import names_below_common_folder, shown
from tasks.progress import CLEANUP, Progress, listening, tell
from tasks.redaction import redacted
from tasks.settings import load_settings, state_folder

if TYPE_CHECKING:
    from tasks.run_report import RunReport

EXIT_FILES_FAILED = 1
EXIT_USAGE = 2
# Source: POSIX shells give 128 + SIGINT.
EXIT_INTERRUPTED = 130

END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# What a run that was asked to end needs until its cleanup begins: its threads finish the requests they are in.
ENDING_SECONDS = 15.0


class _Parser(argparse.ArgumentParser):
    """Refuse bad usage with one sentence."""

    def error(self, message: str) -> NoReturn:
        say(f"{self.prog}: {message}; see {self.prog} --help.")
        raise SystemExit(EXIT_USAGE)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status that the README lists."""
    options = _parser().parse_args(argv)
    interruption = _Interruption()
    try:
        with interruption.handled():
            if options.command == "run":
                return run(options, interruption)
            return {"plan": plan, "check": check, "sweep": sweep}[options.command](options)
    except (UsageError, ConfigurationError) as error:
        say(str(error))
        return EXIT_USAGE
    except KeyboardInterrupt:
        say("Interrupted; everything that the run made was cleaned up.")
        # An interrupt that met code made from text, as a dataclass makes some, leaves a mark in CPython by which the
        # interpreter would end by that signal, and not with our status; running another text takes it away.
        exec("")  # noqa: S102
        return EXIT_INTERRUPTED


def run(options: argparse.Namespace, interruption: _Interruption) -> int:
    """Run the flow here and now, with servers of its own where none are configured.

    Raises:
        UsageError: An input or the output folder cannot be used; nothing was created.
        ConfigurationError: A setting or a server cannot be used; nothing was created.
    """
    names = names_below_common_folder(find_inputs(options.inputs))
    pool_options = read_pool_options(options.pool_id, options.pool)
    _require_writable("output", options.output)
    if options.report is not None:
        _require_writable("report", options.report)
    with connected():
        from tasks.pool_choices import check_pool_options  # noqa: PLC0415 - brings the SDKs: imported by now

        check_pool_options(pool_options)
        return _run_flow(options, names, pool_options, interruption)


def plan(options: argparse.Namespace) -> int:
    """Print what a run would do; nothing is created.

    Raises:
        ConfigurationError: The results are in a blob container, and no Azure is configured.
    """
    from tasks.plan import make_plan  # noqa: PLC0415 - brings Prefect: slow
    from tasks.results_store import results_store  # noqa: PLC0415 - brings the SDKs: slow
    from tasks.word_counts import word_count_workload  # noqa: PLC0415 - as above

    usable, refused = sort_inputs(options.inputs)
    workload = word_count_workload(options.num_words, options.ignore_case)
    store = results_store()
    planned = (
        make_plan(usable, workload, store, refresh=options.refresh, files_per_task=options.files_per_task)
        if usable
        else None
    )
    print_plan(planned, refused, DEFAULT_POOL)
    return EXIT_USAGE if refused else 0


def check(options: argparse.Namespace) -> int:
    """Print whether the Azure that a run would use can be used; nothing is created.

    Raises:
        ConfigurationError: A setting or a Prefect server cannot be used.
    """
    return EXIT_USAGE if print_findings(read_pool_options(options.pool_id, options.pool)) else 0


def sweep(options: argparse.Namespace) -> int:
    """Delete what dead runs left behind in the configured Azure, and print each name.

    Raises:
        ConfigurationError: No Azure is configured, or it does not answer.
    """
    use_up(state_folder())
    if not prefect_api_url():
        load_settings()
    from tasks.accounts import batch_account, blob_account  # noqa: PLC0415 - brings the SDKs: slow
    from tasks.azure_block import configured_azure  # noqa: PLC0415 - brings Prefect: slow
    from tasks.check import advice  # noqa: PLC0415 - as above
    from tasks.sweep import ended_at_on_own_server  # noqa: PLC0415 - brings Prefect: slow
    from tasks.sweep import sweep as sweep_accounts  # noqa: PLC0415 - as above

    if prefect_api_url():
        require_reachable_prefect()
        ended_at = ended_at_on_own_server
    else:
        ended_at = _nothing_is_known
    try:
        by = datetime.now(timezone.utc) - options.older_than
        swept = sweep_accounts(batch_account(), blob_account(), ended_at, by, dry_run=options.dry_run)
    except ServiceError as error:
        raise ConfigurationError(f"{error} {advice(error, configured_azure())}") from error
    for name in swept.leftovers.names:
        if name not in swept.failures:
            print(f"{'left behind' if options.dry_run else 'deleted'}: {name}")
    _say_what_stays(swept.failures)
    say(f"{len(swept.leftovers.names)} left behind by dead runs.")
    return EXIT_FILES_FAILED if swept.failures else 0


def _nothing_is_known(flow_run_id: UUID, prefect_api: str) -> datetime | None:
    """Answer for a Prefect server that there is not: then only deadlines tell what is dead."""
    del flow_run_id, prefect_api
    return None


def _run_flow(
    options: argparse.Namespace, names: Sequence[str], pool_options: PoolOptions, interruption: _Interruption
) -> int:
    from prefect.exceptions import TerminationSignal  # noqa: PLC0415 - imported by now

    from flows.topn import topn  # noqa: PLC0415 - imported by now

    with progress_shown(), listening(interruption.watch):
        try:
            final_state: Any = topn(
                inputs=options.inputs,
                num_words=options.num_words,
                ignore_case=options.ignore_case,
                output_folder=options.output,
                files_per_task=options.files_per_task,
                pool_id=pool_options.pool_id,
                pool=pool_options.setup,
                keep_containers=options.keep_containers,
                keep_job=options.keep_job or options.ask,
                keep_pool=options.keep_pool or options.ask,
                refresh=options.refresh,
                return_state=True,
            )
        except TerminationSignal as signal_of_prefect:
            # While a flow runs, Prefect receives SIGTERM in our place.
            raise KeyboardInterrupt from signal_of_prefect
        finally:
            interruption.clean_up_if_the_run_did_not()
    outcome: RunReport | BaseException = final_state.result(raise_on_failure=False)
    report = outcome.report if isinstance(outcome, FilesFailedError) else outcome
    if interruption.is_asked and isinstance(report, BaseException):
        # Where the request met Prefect's own code, that reports it as an error of another kind.
        raise KeyboardInterrupt
    if isinstance(report, (UsageError, ConfigurationError)):
        raise report
    if isinstance(report, BaseException):
        message = redacted(str(report) if isinstance(report, TopnError) else f"{type(report).__name__}: {report}")
        say(f"The run failed: {message}")
        if options.json:
            print_failed_json("", names, message)
        return EXIT_FILES_FAILED
    if options.json:
        print_json(report)
    else:
        print_table(report, options.output)
    if options.report is not None:
        _write_report(report, options.report)
    if options.ask:
        _ask_and_delete(final_state.state_details.flow_run_id, options)
    return EXIT_FILES_FAILED if report.failed else 0


def _write_report(report: RunReport, folder: str) -> None:
    """Write the run's page; one that cannot be written changes nothing of how the run ended."""
    from tasks.html_report import write_page  # noqa: PLC0415 - brings matplotlib: slow

    try:
        say(f"The report is {shown(str(write_page(report, Path(folder))))}")
    except OSError as error:
        say(f"The report could not be written to {shown(folder)} ({error.strerror}).")


def _ask_and_delete(flow_run_id: Any, options: argparse.Namespace) -> None:
    """Put the tutorial's questions at the end, and do what the answers say."""
    from tasks.cleanup import clean_up_run  # noqa: PLC0415 - brings Prefect, imported by now

    keep = Keep(
        containers=options.keep_containers,
        job=options.keep_job or not ask("Delete the job?"),
        pool=options.keep_pool or not ask("Delete the pool?"),
    )
    _say_what_stays(clean_up_run(flow_run_id, keep))


def _say_what_stays(failures: Mapping[str, str]) -> None:
    for name, reason in failures.items():
        say(f"Could not delete {name}: {reason}")


def _require_writable(option: str, folder: str) -> None:
    """Make the folder that an option names, and see that a file can be made in it.

    Raises:
        UsageError: It cannot.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(prefix=".topn-", dir=folder):
            pass
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(
            f"The {option} folder {shown(folder)} cannot be written ({reason}): name another with --{option}."
        ) from error


class _Interruption:
    """Requests to end: each raises KeyboardInterrupt, unless the run is ending already.

    An interrupt may be raised anywhere, also where Prefect takes it for an error of its own, or loses it; so a later
    request raises it again, and what the run's hook did not clean up is cleaned up here.
    """

    def __init__(self) -> None:
        self._asked_at = float("-inf")
        # Every signal leaves its number here, also one that Prefect receives and loses.
        self._seen, self._see = os.pipe()
        os.set_blocking(self._seen, False)
        os.set_blocking(self._see, False)
        self._is_asked = False
        self._flow_run_id = ""
        self._is_cleaned_up = False

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Receive the requests meanwhile."""
        before = {name: signal.signal(name, self._end) for name in END_SIGNALS}
        signal.set_wakeup_fd(self._see, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(-1)
            for name, handler in before.items():
                signal.signal(name, handler)
            os.close(self._seen)
            os.close(self._see)

    @property
    def is_asked(self) -> bool:
        """Whether anybody has asked the run to end."""
        try:
            numbers = os.read(self._seen, 4096)
        except BlockingIOError:
            numbers = b""
        self._is_asked = self._is_asked or any(number in END_SIGNALS for number in numbers)
        return self._is_asked

    def watch(self, progress: Progress) -> None:
        """Learn from the progress how far the run is."""
        self._flow_run_id = progress.flow_run_id or self._flow_run_id
        self._is_cleaned_up = self._is_cleaned_up or progress.step == CLEANUP

    def clean_up_if_the_run_did_not(self) -> None:
        """Clean up after an interrupt that kept the run's own hook from doing it."""
        if not self.is_asked or self._is_cleaned_up or not self._flow_run_id:
            return
        from tasks.cleanup import clean_up_run  # noqa: PLC0415 - brings Prefect, imported by now

        self._is_cleaned_up = True
        _say_what_stays(clean_up_run(UUID(self._flow_run_id), Keep()))

    def _end(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        is_ending = self._is_cleaned_up or time.monotonic() - self._asked_at < ENDING_SECONDS
        note = "Still cleaning up; this ends by itself." if is_ending else "Stopping and cleaning up."
        if not tell(note):
            say(note)
        if not is_ending:
            self._asked_at = time.monotonic()
            raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
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
    if number > MOST_FILES_PER_TASK:
        raise argparse.ArgumentTypeError(f"{text!r} is more than {MOST_FILES_PER_TASK}")
    return number


def _pool_id(text: str) -> str:
    if not re.fullmatch(POOL_ID, text):
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


if __name__ == "__main__":
    sys.exit(main())
