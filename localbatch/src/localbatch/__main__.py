"""The localbatch command: a local Azure in the foreground, or around another command."""

from __future__ import annotations

import argparse
import math
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from localbatch.faults.definitions import FaultError
from localbatch.faults.script import read_script
from localbatch.local_azure import LocalAzure
from localbatch.local_batch import RUNNERS, RequestRecord
from localbatch.nodes.simulated import SECONDS
from localbatch.processes.certificate import Certificate
from localbatch.processes.installation import AzuriteError, install_azurite
from localbatch.processes.launcher import Launcher
from localbatch.rules.agenda import PACES

BATCH_PORT = 10100
STORAGE_PORT = 10000
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override] # One sentence, without the usage.
        self.exit(2, f"{self.prog}: {message}.\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="localbatch", description="A local Azure: Azurite, and a server of the Batch REST API.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("serve", help="run until Ctrl-C, and print the variables that lead clients here")
    run.add_argument("--port", type=_port, default=BATCH_PORT, help=f"of the Batch account ({BATCH_PORT})")
    run.add_argument(
        "--storage-port", type=_port, default=STORAGE_PORT, help=f"of the storage account ({STORAGE_PORT})"
    )
    run.add_argument("--state", type=Path, help="the directory that holds the data, in azure ($TOPN_STATE or .topn)")
    run.add_argument("--log", action="store_true", help="print each request to the Batch account on stderr")
    run.add_argument("--stop-on-eof", action="store_true", help="stop when the standard input ends, too")
    commands.add_parser("install", help="install Azurite for this user, unless it is there")
    around = commands.add_parser("exec", help="run a command beside a local Azure of its own")
    around.add_argument("argv", nargs="+", metavar="COMMAND")
    for each in (run, around):
        _add_common_options(each)
    return parser


def _add_common_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pace", choices=PACES, default="fast", help="how long transitional states last (fast)")
    parser.add_argument(
        "--node-start-seconds",
        type=_seconds,
        metavar="SECONDS",
        help="how long a node takes to be ready for its start task, whatever the pace",
    )
    parser.add_argument(
        "--runner", choices=RUNNERS, default=RUNNERS[0], help="whether tasks are processes or only take time"
    )
    parser.add_argument(
        "--task-seconds",
        type=_seconds,
        default=0.0,
        metavar="SECONDS",
        help=f"how long a simulated task takes whose {SECONDS} does not say so (0)",
    )
    parser.add_argument(
        "--task-output",
        metavar="TEXT",
        help="what a simulated task leaves in each of its output files, such as '$AZ_BATCH_TASK_ID' (nothing)",
    )
    for name, nodes in (("--core-quota", "dedicated"), ("--low-priority-core-quota", "spot")):
        help_text = f"how many cores the {nodes} nodes of all pools may have (any number)"
        parser.add_argument(name, type=_cores, metavar="CORES", help=help_text)
    parser.add_argument("--cert", type=Path, metavar="FILE", help="the certificate of 127.0.0.1, to speak https")
    parser.add_argument("--key", type=Path, metavar="FILE", help="its key")
    parser.add_argument("--oauth", choices=["basic"], help="accept bearer tokens, too, whoever signed them")
    parser.add_argument("--tenant", metavar="ID", help="the one tenant whose tokens the Batch account accepts (any)")
    parser.add_argument("--faults", type=Path, metavar="FILE", help="what goes wrong, as JSON")
    parser.add_argument(
        "--storage-faults",
        action="store_true",
        help="let requests to the storage account be made to go wrong, too; on if FILE has storage_faults",
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return seconds


def _cores(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of cores")
    return int(text)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) >= 1 << 16:
        raise argparse.ArgumentTypeError(f"{text!r} is no port")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.command == "install":
        return _install()
    if bool(options.cert) != bool(options.key):
        parser.error("--cert and --key belong together")
    if options.oauth and not options.cert:
        parser.error("no client sends a token without https: --oauth needs --cert and --key")
    try:
        return _serve(options) if options.command == "serve" else _exec(options)
    except FaultError as error:
        print(f"localbatch: {error}", file=sys.stderr)
        return 2
    except (AzuriteError, OSError) as error:
        print(f"localbatch: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _install() -> int:
    try:
        print(f"Azurite is in {install_azurite()}")
    except (AzuriteError, OSError) as error:
        print(f"localbatch: {error}", file=sys.stderr)
        return 1
    return 0


class _Wakeup:
    """What the main thread waits for: a signal, or a word from another thread.

    A wait for a lock or for a child may sleep through a signal that another thread was given; a pipe does not.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        signal.set_wakeup_fd(self._write)
        for number in STOP_SIGNALS:
            signal.signal(number, lambda _number, _frame: None)

    def wait(self) -> int:
        """Return the number of the signal that came, or 0 after a word from another thread."""
        return os.read(self._read, 1)[0]

    def wake(self) -> None:
        """Give the main thread a word."""
        os.write(self._write, bytes([0]))

    def has_come(self) -> bool:
        """Whether wait would return at once."""
        return bool(select.select([self._read], [], [], 0)[0])


def _serve(options: argparse.Namespace) -> int:
    state = options.state or Path(os.environ.get("TOPN_STATE") or ".topn")
    azure = _local_azure(
        options,
        state_dir=state / "azure",
        port=options.port,
        storage_port=options.storage_port,
        on_request=_print_request if options.log else None,
    )
    wakeup = _Wakeup()
    if options.stop_on_eof:
        threading.Thread(target=_wait_for_eof, args=(wakeup,), daemon=True).start()
    with azure:
        print(azure.endpoint, azure.storage_endpoint, sep="\n")
        for name, value in azure.environment.items():
            print(f"export {name}={value}")
        print("ready", flush=True)
        wakeup.wait()
    return 0


def _local_azure(
    options: argparse.Namespace,
    *,
    state_dir: Path | None = None,
    port: int = 0,
    storage_port: int = 0,
    on_request: Callable[[RequestRecord], None] | None = None,
) -> LocalAzure:
    script = read_script(options.faults) if options.faults else {}
    azure = LocalAzure(
        state_dir=state_dir,
        pace=options.pace,
        port=port,
        storage_port=storage_port,
        storage_faults=options.storage_faults or "storage_faults" in script,
        runner=options.runner,
        task_seconds=options.task_seconds,
        task_output=options.task_output,
        node_start_seconds=options.node_start_seconds,
        core_quota=options.core_quota,
        low_priority_core_quota=options.low_priority_core_quota,
        on_request=on_request,
        certificate=Certificate(options.cert, options.key) if options.cert else None,
        oauth=options.oauth is not None,
        tenant=options.tenant,
    )
    added = azure.faults.add_all(script["faults"]) if "faults" in script else []
    if "storage_faults" in script:
        added += azure.storage_faults.add_all(script["storage_faults"])
    for fault in added:
        if "seed" in fault:
            print(f"localbatch: the seed of {fault['fault']} {fault['operation']} is {fault['seed']}", file=sys.stderr)
    return azure


def _print_request(record: RequestRecord) -> None:
    print(record, file=sys.stderr, flush=True)


def _wait_for_eof(wakeup: _Wakeup) -> None:
    while os.read(sys.stdin.fileno(), 1 << 16):
        pass
    wakeup.wake()


def _exec(options: argparse.Namespace) -> int:
    local_azure = _local_azure(options)
    wakeup = _Wakeup()
    with local_azure as azure, closing(Launcher(in_terminal=True)) as launcher, ThreadPoolExecutor(1) as waiting:
        if wakeup.has_come():
            return 128 + wakeup.wait()
        child = launcher.start(
            options.argv, environment=os.environ | azure.environment, directory=Path.cwd(), files=(0, 1, 2)
        )
        ended = waiting.submit(child.wait)
        ended.add_done_callback(lambda _: wakeup.wake())
        while number := wakeup.wait():
            if number != signal.SIGINT or not _is_in_foreground():
                child.send_signal(number)
        try:
            status = ended.result()
        except FileNotFoundError:
            print(f"localbatch: there is no program {options.argv[0]}", file=sys.stderr)
            return 127
    return 128 - status if status < 0 else status


def _is_in_foreground() -> bool:
    """Whether Ctrl-C reached the command already, as it reaches everything in the foreground of a terminal."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    finally:
        os.close(terminal)


if __name__ == "__main__":
    raise SystemExit(main())
