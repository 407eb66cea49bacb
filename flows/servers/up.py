"""`make up`: run Prefect with its UI, the deployments, a worker and a local Azure until Ctrl-C."""

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

from flows.console import print_message, protected_output
from flows.servers.addresses import publish_addresses
from flows.servers.connect import prepare_environment
from flows.servers.orphans import orphans_terminated
from flows.servers.prefect_toml import delete_stale_prefect_toml, published_in_prefect_toml
from flows.servers.processes import (
    LocalAzure,
    PrefectServer,
    Service,
    Worker,
    prefect_environment,
    python_command,
    state_folder_lock,
)
from flows.servers.state import open_state_file
from tasks.azure.settings import read_settings, state_folder
from tasks.errors import ConfigurationError

BATCH_PORT = 10100
STORAGE_PORT = 10000
# Prefect's default port.
PREFECT_PORT = 4200

DEPLOYMENTS = Path("prefect.yaml")
DEPLOY_LOG = "prefect-deploy.log"
DEPLOY_TIMEOUT_SECONDS = 300.0
WORK_POOL = "topn-pool"
WORKER_POLL_SECONDS = 2
POLL_SECONDS = 0.2

# Measured: a worker waits 30 s for a cancelled run to exit, and then runs the hook that cleans up.
CANCEL_TIMEOUT_SECONDS = 60.0

EXIT_SERVER_ENDED = 1
EXIT_CONFIGURATION = 2
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    """Run until Ctrl-C. Return 0 after Ctrl-C, 1 if a server exited, or 2 if one could not be started."""
    _set_signal_handlers(_interrupt)
    try:
        prepare_environment()
        return up(state_folder())
    except ConfigurationError as error:
        print_message(str(error))
        return EXIT_CONFIGURATION


def up(state: Path) -> int:
    """Start all servers with their data in the state folder, print their addresses, and wait for Ctrl-C.

    Returns:
        The exit code.

    Raises:
        ConfigurationError: A server cannot be started, or `make up` already runs in this state folder.
    """
    if not DEPLOYMENTS.exists():
        raise ConfigurationError(f"There is no {DEPLOYMENTS} here. Run `make up` in the folder that contains it.")
    with ExitStack() as stack:
        try:
            publish = stack.enter_context(publish_addresses(state))
            stack.enter_context(state_folder_lock(state, lambda: print_message("Waiting for a run in this folder.")))
            delete_stale_prefect_toml()
            stack.enter_context(orphans_terminated())
            print_message("Starting Prefect, the deployments, a worker and Azure. The first time, this takes a minute.")
            prefect = stack.enter_context(PrefectServer(state, port=PREFECT_PORT, pages=True))
            _use_only_server(prefect, state)
            from flows.servers.prefect_setup import prepare_server  # noqa: PLC0415 - takes seconds

            prefect.wait()
            prepare_server(WORK_POOL)
            azure = _local_azure(state, stack)
            _deploy(state)
            local_azure = {} if azure is None else azure.wait()
            os.environ.update(local_azure)
            stack.callback(_crash_dead_runs, prefect)
            worker = stack.enter_context(Worker(state, WORK_POOL))
            worker.wait()
            publish({**prefect.client_environment, **local_azure})
            has_toml = stack.enter_context(published_in_prefect_toml(prefect.client_environment))
            _print_addresses(prefect, is_local=azure is not None, has_toml=has_toml)
            return _wait([service for service in (prefect, azure, worker) if service is not None])
        except KeyboardInterrupt:
            return 0
        finally:
            # A second Ctrl-C must not interrupt the shutdown of the servers.
            _set_signal_handlers(signal.SIG_IGN)


def _use_only_server(prefect: PrefectServer, state: Path) -> None:
    """Replace the Prefect settings of this process and its children by those of this server."""
    environment = prefect_environment(state)
    os.environ.clear()
    os.environ.update(environment)
    os.environ.update(prefect.client_environment)
    os.environ["PREFECT_WORKER_QUERY_SECONDS"] = str(WORKER_POLL_SECONDS)
    os.environ["TOPN_STATE"] = str(state)


def _local_azure(state: Path, stack: ExitStack) -> LocalAzure | None:
    """Start a local Azure unless the environment or a Prefect block configures another.

    Raises:
        ConfigurationError: The settings are incomplete, or the environment and the block conflict.
    """
    from tasks.azure.block import block_values, configured_azure  # noqa: PLC0415 - Prefect is imported by now

    if not read_settings().may_be_local or block_values():
        configured_azure()
        return None
    return stack.enter_context(LocalAzure(state, port=BATCH_PORT, storage_port=STORAGE_PORT))


def _deploy(state: Path) -> None:
    """Create the deployments of `prefect.yaml`, which run in the current folder.

    Raises:
        ConfigurationError: `prefect deploy` failed.
    """
    command = python_command("prefect", "--no-prompt", "deploy", "--all")
    environment = os.environ | {"PWD": os.getcwd()}
    with open_state_file(state, DEPLOY_LOG, "wb") as output:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            timeout=DEPLOY_TIMEOUT_SECONDS,
            check=False,
        )
    if done.returncode:
        raise ConfigurationError(f"`prefect deploy` failed for {DEPLOYMENTS} (see `{state / DEPLOY_LOG}`).")


def _print_addresses(prefect: PrefectServer, *, is_local: bool, has_toml: bool) -> None:
    from tasks.azure.block import configured_azure  # noqa: PLC0415 - Prefect is imported by now

    azure = configured_azure()
    where = "local" if is_local else "as configured"
    for title, address in (
        ("Prefect's pages", prefect.pages_url),
        ("Password for the pages", prefect.password),
        ("Prefect's API", prefect.api_url),
        (f"Azure Batch, {where}", azure.batch_endpoint),
        (f"Blob Storage, {where}", azure.storage_endpoint),
    ):
        print(f"{title}:\n{address}")
    command = shutil.which("prefect", path=str(Path(sys.executable).parent)) or "prefect"
    print("\nReady. Press Ctrl-C to stop. In another terminal:")
    exports = [f"export {name}={value}" for name, value in prefect.client_environment.items()]
    run = f"{os.path.relpath(command)} deployment run topn/default --watch"
    print(*([run, "In other folders, first:", *exports] if has_toml else [*exports, run]), sep="\n", flush=True)


def _wait(services: Sequence[Service]) -> int:
    """Wait until Ctrl-C, or until a server exits. Return the exit code."""
    try:
        while True:
            for service in services:
                if message := service.exit_message():
                    print_message(f"{message} Stopping the others.")
                    return EXIT_SERVER_ENDED
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        _cancel_runs()
        return 0


def _cancel_runs() -> None:
    """Cancel the worker's runs, and wait until they are cleaned up. Stopping the worker would do neither."""
    from flows.servers.prefect_setup import cancel_runs, count_open_runs  # noqa: PLC0415 - Prefect is imported by now

    if count := count_open_runs():
        runs = "1 run" if count == 1 else f"{count} runs"
        print_message(f"Cancelling {runs} and cleaning up. Press Ctrl-C again to stop without waiting.")
        with suppress(KeyboardInterrupt):
            cancel_runs(CANCEL_TIMEOUT_SECONDS)
    print_message("Stopping. The history and results stay in the state folder.")


def _crash_dead_runs(prefect: PrefectServer) -> None:
    """Set the runs that the worker left open to Crashed, if the Prefect server is still running."""
    from flows.servers.prefect_setup import crash_dead_runs  # noqa: PLC0415 - Prefect is imported by now

    if prefect.exit_message() is None:
        crash_dead_runs()


def _set_signal_handlers(handler: Callable[[int, FrameType | None], object] | signal.Handlers) -> None:
    for signal_number in STOP_SIGNALS:
        # For example, `nohup` ignores SIGHUP. An ignored signal stays ignored.
        if signal.getsignal(signal_number) is not signal.SIG_IGN:
            signal.signal(signal_number, handler)


def _interrupt(signal_number: int, frame: FrameType | None) -> NoReturn:
    del signal_number, frame
    raise KeyboardInterrupt


if __name__ == "__main__":
    with protected_output():
        sys.exit(main())
