"""`make up`: Prefect with its pages, the deployments, a worker and a local Azure, in one terminal until Ctrl-C."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from flows.console import say
from flows.servers.addresses import addresses_left
from flows.servers.orphans import orphans_ended
from flows.servers.processes import LocalAzure, PrefectServer, Service, Worker, alone_in, prefect_environment
from tasks.azure.settings import read_settings, state_folder
from tasks.errors import ConfigurationError

BATCH_PORT = 10100
STORAGE_PORT = 10000
# Source: Prefect's own choice.
PREFECT_PORT = 4200

DEPLOYMENTS = Path("prefect.yaml")
DEPLOY_SECONDS = 300.0
WORK_POOL = "topn-pool"
WORKER_POLL_SECONDS = 2
POLL_SECONDS = 0.2

# Source: measured. A worker gives a cancelled run 30 s to end; then it runs the hook that cleans up.
CANCEL_SECONDS = 60.0

EXIT_SERVER_ENDED = 1
EXIT_CONFIGURATION = 2
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    """Run until Ctrl-C; returns 0 after one, 1 if a server ended by itself, 2 if one cannot be started."""
    _on_stop_signals(_interrupt)
    try:
        return up(state_folder())
    except ConfigurationError as error:
        say(str(error))
        return EXIT_CONFIGURATION


def up(state: Path) -> int:
    """Start everything on the data in a folder, say where it is, and wait for Ctrl-C; returns the exit status.

    Raises:
        ConfigurationError: Something cannot be started, or `make up` runs on this folder already.
    """
    if not DEPLOYMENTS.exists():
        raise ConfigurationError(f"There is no {DEPLOYMENTS} here: run `make up` in the folder that holds it.")
    with ExitStack() as stack:
        try:
            leave_addresses = stack.enter_context(addresses_left(state))
            stack.enter_context(alone_in(state, lambda: say("A run uses this folder; waiting for its end.")))
            stack.enter_context(orphans_ended())
            say("Starting Prefect, the deployments, a worker and Azure. The first time, this takes a minute.")
            prefect = stack.enter_context(PrefectServer(state, port=PREFECT_PORT, pages=True))
            _use_only(prefect, state)
            from flows.servers.prefect_setup import prepare_server  # noqa: PLC0415 - takes seconds, while the server starts

            prefect.wait()
            prepare_server(WORK_POOL)
            azure = _local_azure(state, stack)
            _deploy(state / "prefect-deploy.log")
            local_azure = {} if azure is None else azure.wait()
            os.environ.update(local_azure)
            stack.callback(_end_dead_runs, prefect)
            worker = stack.enter_context(Worker(state, WORK_POOL))
            worker.wait()
            leave_addresses({"PREFECT_API_URL": prefect.api_url, **local_azure})
            _print_addresses(prefect, is_local=azure is not None)
            return _wait([service for service in (prefect, azure, worker) if service is not None])
        except KeyboardInterrupt:
            return 0
        finally:
            # A second Ctrl-C must not keep the servers from being stopped.
            _on_stop_signals(signal.SIG_IGN)


def _use_only(prefect: PrefectServer, state: Path) -> None:
    """Let this process, and all that it starts, use this server, whatever the user's own Prefect settings say."""
    environment = prefect_environment(state)
    os.environ.clear()
    os.environ.update(environment)
    os.environ["PREFECT_API_URL"] = prefect.api_url
    os.environ["PREFECT_WORKER_QUERY_SECONDS"] = str(WORKER_POLL_SECONDS)
    os.environ["TOPN_STATE"] = str(state)


def _local_azure(state: Path, stack: ExitStack) -> LocalAzure | None:
    """Start a local Azure, unless the settings or the Prefect block name another.

    Raises:
        ConfigurationError: They do so by half, or contradict each other.
    """
    from tasks.azure.block import block_values, configured_azure  # noqa: PLC0415 - brings Prefect, imported by now

    if not read_settings().may_be_local or block_values():
        configured_azure()
        return None
    return stack.enter_context(LocalAzure(state, port=BATCH_PORT, storage_port=STORAGE_PORT))


def _deploy(log: Path) -> None:
    """Make the deployments of prefect.yaml, to run in this folder.

    Raises:
        ConfigurationError: Prefect refuses them.
    """
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    environment = os.environ | {"PWD": os.getcwd()}
    with log.open("wb") as output:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            timeout=DEPLOY_SECONDS,
            check=False,
        )
    if done.returncode:
        raise ConfigurationError(f"Prefect refuses the deployments of {DEPLOYMENTS}: see {log}.")


def _print_addresses(prefect: PrefectServer, *, is_local: bool) -> None:
    from tasks.azure.block import configured_azure  # noqa: PLC0415 - brings Prefect, imported by now

    azure = configured_azure()
    where = "local" if is_local else "as configured"
    for title, address in (
        ("Prefect's pages", prefect.pages_url),
        ("Prefect's API", prefect.api_url),
        (f"Azure Batch, {where}", azure.batch_endpoint),
        (f"Blob Storage, {where}", azure.storage_endpoint),
    ):
        print(f"{title}:\n{address}")
    command = shutil.which("prefect", path=str(Path(sys.executable).parent)) or "prefect"
    print("\nReady; Ctrl-C ends it. In another terminal:")
    print(f"export PREFECT_API_URL={prefect.api_url}")
    print(f"{os.path.relpath(command)} deployment run topn/default --watch", flush=True)


def _wait(services: Sequence[Service]) -> int:
    """Wait for Ctrl-C, or until one of the servers ends; returns the exit status."""
    try:
        while True:
            for service in services:
                if sentence := service.end():
                    say(f"{sentence} Stopping the others.")
                    return EXIT_SERVER_ENDED
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        _cancel_runs()
        return 0


def _cancel_runs() -> None:
    """Cancel what the worker runs, and let it clean up; a worker that is just stopped would do neither."""
    from flows.servers.prefect_setup import cancel_runs, count_open_runs  # noqa: PLC0415 - brings Prefect, imported by now

    if count := count_open_runs():
        runs = "1 run" if count == 1 else f"{count} runs"
        say(f"Cancelling {runs} and cleaning up. Ctrl-C again does not wait for that.")
        with suppress(KeyboardInterrupt):
            cancel_runs(CANCEL_SECONDS)
    say("Stopping. History and results are kept for the next time.")


def _end_dead_runs(prefect: PrefectServer) -> None:
    """Say of runs that the worker has not ended that they have crashed, while the server can still be told."""
    from flows.servers.prefect_setup import end_dead_runs  # noqa: PLC0415 - brings Prefect, imported by now

    if prefect.end() is None:
        end_dead_runs()


def _on_stop_signals(handler: Callable[[int, FrameType | None], object] | signal.Handlers) -> None:
    for number in STOP_SIGNALS:
        signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    del number, frame
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
