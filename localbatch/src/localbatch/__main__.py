"""The command `localbatch`: it runs a local Azure in the foreground, or another command next to one."""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import select
import signal
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

from localbatch.faults.definitions import FaultError
from localbatch.faults.script import read_script
from localbatch.local_azure import LocalAzure
from localbatch.nodes.simulated import SECONDS
from localbatch.options import DEVELOPMENT_KEY, RUNNERS, Options, RequestRecord
from localbatch.processes.azurite import STORAGE_KEY
from localbatch.processes.certificate import Certificate
from localbatch.processes.installation import AzuriteError, install_azurite
from localbatch.processes.launcher import Launcher
from localbatch.processes.private import PRIVATE_UMASK, ensure_private_folder
from localbatch.rules.agenda import PACES

BATCH_PORT = 10100
STORAGE_PORT = 10000
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override] # One sentence, without the usage.
        self.exit(2, f"{self.prog}: {message}.\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="localbatch", description="A local Azure: Azurite, and a server of the Azure Batch REST API.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="run until Ctrl-C, and print the variables that clients need")
    serve.add_argument(
        "--port", type=_port, default=BATCH_PORT, help="port of the Batch account (default: %(default)s)"
    )
    serve.add_argument(
        "--storage-port", type=_port, default=STORAGE_PORT, help="port of the storage account (default: %(default)s)"
    )
    serve.add_argument(
        "--state", type=Path, help="folder of the data, which is in its folder azure (default: $TOPN_STATE or .topn)"
    )
    serve.add_argument(
        "--development-key",
        action="store_true",
        help="use the well-known keys, with which every user of this machine can run programs as you "
        "(default: random keys, kept in the folder of the data)",
    )
    serve.add_argument("--log", action="store_true", help="print each request to the Batch account on stderr")
    serve.add_argument("--stop-on-eof", action="store_true", help="also stop at the end of standard input")
    commands.add_parser("install", help="install Azurite in the user's data folder, unless it is there")
    around = commands.add_parser("exec", help="run a command next to a local Azure of its own")
    around.add_argument("argv", nargs="+", metavar="COMMAND")
    for each in (serve, around):
        _add_common_options(each)
    return parser


def _add_common_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a local Azure. Most have the name of a field of Options."""
    parser.add_argument(
        "--pace", choices=PACES, default="fast", help="durations of transitional states (default: %(default)s)"
    )
    parser.add_argument(
        "--node-start-seconds",
        type=_seconds,
        metavar="SECONDS",
        help="time from the creation of a node to its start task (default: that of the pace)",
    )
    parser.add_argument(
        "--sample-delay",
        dest="sample_delay_seconds",
        type=_seconds,
        metavar="SECONDS",
        help="time from enabling autoscale until its first samples (default: that of the pace)",
    )
    parser.add_argument(
        "--runner",
        choices=RUNNERS,
        default=RUNNERS[0],
        help="run tasks as processes, or simulate them (default: %(default)s)",
    )
    parser.add_argument(
        "--task-seconds",
        type=_seconds,
        default=0.0,
        metavar="SECONDS",
        help=f"duration of a simulated task that does not set {SECONDS} (default: 0)",
    )
    parser.add_argument(
        "--task-output",
        metavar="TEXT",
        help="content of each output file of simulated tasks, such as '$AZ_BATCH_TASK_ID' (default: no files)",
    )
    for name, nodes in (("--core-quota", "dedicated"), ("--low-priority-core-quota", "spot")):
        help_text = f"maximum number of cores of the {nodes} nodes of all pools (default: no limit)"
        parser.add_argument(name, type=_cores, metavar="CORES", help=help_text)
    parser.add_argument(
        "--family-core-quota",
        dest="family_core_quotas",
        type=_family_quota,
        action="append",
        default=[],
        metavar="FAMILY=CORES",
        help="maximum number of cores of the dedicated nodes of a VM family such as standardDSv3Family; repeatable",
    )
    parser.add_argument(
        "--cert", dest="certificate_file", type=Path, metavar="FILE", help="certificate for 127.0.0.1, to use https"
    )
    parser.add_argument("--key", dest="certificate_key", type=Path, metavar="FILE", help="key of the certificate")
    parser.add_argument(
        "--oauth",
        dest="oauth_mode",
        choices=["basic"],
        help="also accept bearer tokens, without checking signatures: every user of this machine can write a token",
    )
    parser.add_argument("--tenant", metavar="ID", help="the only tenant whose tokens are accepted (default: any)")
    parser.add_argument("--faults", type=Path, metavar="FILE", help="fault script, as JSON")
    parser.add_argument(
        "--storage-faults",
        action="store_true",
        help="allow faults in requests to the storage account (default: if FILE has storage_faults)",
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return seconds


def _cores(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of cores")
    return int(text)


def _family_quota(text: str) -> tuple[str, int]:
    family, separator, cores = text.rpartition("=")
    if not family or not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not FAMILY=CORES")
    return family, _cores(cores)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) >= 1 << 16:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit status."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        if arguments.command == "install":
            print(f"Azurite is in {install_azurite()}")
            return 0
        if bool(arguments.certificate_file) != bool(arguments.certificate_key):
            parser.error("use --cert and --key together")
        if arguments.oauth_mode and not arguments.certificate_file:
            parser.error("--oauth needs --cert and --key, because clients send tokens over https only")
        return _serve(arguments) if arguments.command == "serve" else _exec(arguments)
    except FaultError as error:
        print(f"localbatch: {error}", file=sys.stderr)
        return 2
    except (AzuriteError, OSError) as error:
        print(f"localbatch: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


class _Wakeup:
    """Wakes the main thread: by a signal, or from another thread.

    Waiting for a lock or a child process can miss a signal that another thread received. Reading a pipe cannot.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        signal.set_wakeup_fd(self._write)
        for number in STOP_SIGNALS:
            # An ignored signal stays ignored, as with nohup.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda _number, _frame: None)

    def wait(self) -> int:
        """Return the number of the signal that arrived, or 0 if another thread called `wake`."""
        return os.read(self._read, 1)[0]

    def wake(self) -> None:
        """Wake the main thread."""
        os.write(self._write, bytes([0]))

    def is_pending(self) -> bool:
        """Whether `wait` would return at once."""
        return bool(select.select([self._read], [], [], 0)[0])


def _serve(arguments: argparse.Namespace) -> int:
    state = arguments.state or Path(os.environ.get("TOPN_STATE") or ".topn")
    os.umask(PRIVATE_UMASK)
    ensure_private_folder(state)
    keys = {"key": DEVELOPMENT_KEY, "storage_key": STORAGE_KEY} if arguments.development_key else {}
    on_request = _print_request if arguments.log else None
    azure = _local_azure(arguments, state_dir=state / "azure", on_request=on_request, **keys)
    wakeup = _Wakeup()
    if arguments.stop_on_eof:
        threading.Thread(target=_wait_for_eof, args=(wakeup,), daemon=True).start()
    with azure:
        print(azure.endpoint, azure.storage_endpoint, sep="\n")
        for name, value in azure.environment.items():
            print(f"export {name}={value}")
        print(f"export AZURE_STORAGE_CONNECTION_STRING='{azure.connection_string}'")
        # Programs that start this one wait for this line.
        print("ready", flush=True)
        wakeup.wait()
    return 0


def _local_azure(arguments: argparse.Namespace, **options: Any) -> LocalAzure:
    script = read_script(arguments.faults) if arguments.faults else {}
    names = {field.name for field in dataclasses.fields(Options)}
    options |= {name: value for name, value in vars(arguments).items() if name in names}
    options["family_core_quotas"] = dict(arguments.family_core_quotas)
    # A script with storage faults needs the proxy.
    options["storage_faults"] |= "storage_faults" in script
    if arguments.certificate_file:
        options["certificate"] = Certificate(arguments.certificate_file, arguments.certificate_key)
    azure = LocalAzure(oauth=arguments.oauth_mode is not None, **options)
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


def _exec(arguments: argparse.Namespace) -> int:
    local_azure = _local_azure(arguments)
    wakeup = _Wakeup()
    with local_azure as azure, closing(Launcher(in_terminal=True)) as launcher, ThreadPoolExecutor(1) as waiting:
        # A signal arrived during the start.
        if wakeup.is_pending():
            return 128 + wakeup.wait()
        child = launcher.start(
            arguments.argv, environment=os.environ | azure.environment, directory=Path.cwd(), files=(0, 1, 2)
        )
        ended = waiting.submit(child.wait)
        ended.add_done_callback(lambda _: wakeup.wake())
        while number := wakeup.wait():
            # In a terminal, the command has received Ctrl-C itself.
            if number != signal.SIGINT or not _is_in_foreground():
                child.send_signal(number)
        try:
            status = ended.result()
        except FileNotFoundError:
            print(f"localbatch: there is no program {arguments.argv[0]}", file=sys.stderr)
            return 127
    # Like a shell: 128 + the number of the signal.
    return 128 - status if status < 0 else status


def _is_in_foreground() -> bool:
    """Whether the command has already received a Ctrl-C, as all foreground processes of a terminal do."""
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
