"""The Prefect server and the Azure that a command uses: the configured ones, those of `make up`, or new local ones."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event, Thread

from flows.console import print_message, show_starting
from flows.servers.addresses import read_published_addresses
from flows.servers.prefect_server import DATABASE
from flows.servers.prefect_toml import PREFECT_TOML, delete_stale_prefect_toml, read_published_prefect_toml
from flows.servers.processes import LocalAzure, PrefectServer, state_folder_lock
from tasks.azure.settings import load_settings, read_settings, state_folder
from tasks.environment import bypass_proxies_on_loopback, check_certificate_variables, ensure_home_folder
from tasks.errors import ConfigurationError, ServiceError
from tasks.prefect_api import describe_prefect_error

POLL_SECONDS = 0.5

# A Prefect server took 60 ms to record a task run on a busy machine. These timeouts leave a wide margin.
HISTORY_TIMEOUT_SECONDS = 30.0
HISTORY_TIMEOUT_SECONDS_PER_TASK_RUN = 0.5


@contextmanager
def connected() -> Iterator[None]:
    """Run the block with a Prefect server and an Azure, and set their addresses in `os.environ` while it runs.

    Local servers keep their data in the state folder. The Prefect server is stopped once it has recorded the history.
    The block may call `connected()` again, which uses the same servers.

    Raises:
        ConfigurationError: A setting or a server cannot be used. Nothing was created.
    """
    environment = dict(os.environ)
    try:
        with connected_until_exit():
            yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        if "prefect.context" in sys.modules:
            _refresh_prefect_settings()


@contextmanager
def connected_until_exit(on_prefect_exit: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Do the same as `connected()` in a process that ends after the block. It does not restore the settings.

    Args:
        on_prefect_exit: Called with a message, in another thread, if the Prefect server of this process exits early.

    Raises:
        ConfigurationError: A setting or a server cannot be used. Nothing was created.
    """
    prepare_environment()
    state = state_folder()
    use_make_up_servers(state)
    azure: LocalAzure | None = None
    server: PrefectServer | None = None
    needs_prefect = not prefect_api_url()
    # A Prefect block can only be in a database that exists.
    may_have_block = not needs_prefect or (state / DATABASE).exists()
    with ExitStack() as services:
        if needs_prefect:
            services.enter_context(
                state_folder_lock(state, lambda: print_message("Waiting for another run in this folder."))
            )
        if read_settings().may_be_local:
            azure = services.enter_context(LocalAzure(state))
        elif needs_prefect:
            load_settings()
        if needs_prefect:
            server = services.enter_context(PrefectServer(state))
            os.environ.update(server.client_environment)
            # It has no pages, and ends with the run, so nothing links to it.
            os.environ["PREFECT_UI_URL"] = ""
            os.environ.setdefault("DO_NOT_TRACK", "1")
            os.environ["PREFECT_LOCAL_STORAGE_PATH"] = str(state / "storage")
        # Logs are for the Prefect UI. The terminal shows progress and results.
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
        os.environ.setdefault("PREFECT_LOGGING_INTERNAL_LEVEL", "CRITICAL")
        # Otherwise, each log record that a Prefect server does not receive is an error on the terminal, also at the exit of
        # the process.
        logging.raiseExceptions = False
        with show_starting():
            is_imported = "prefect" in sys.modules
            import flows.topn  # noqa: F401, PLC0415 - takes seconds, during which the servers start

            if is_imported:
                _refresh_prefect_settings()
            if azure is not None and not may_have_block:
                azure.check()
            if server is not None:
                server.wait()
            else:
                require_reachable_prefect()
            _use_azure(azure)
        if server is None:
            yield
            return
        ended = Event()
        Thread(target=_watch, args=(server, ended, on_prefect_exit), daemon=True).start()
        try:
            yield
        finally:
            ended.set()
            if server.exit_message() is None:
                _wait_for_history(server)
            else:
                # At the exit of the process, Prefect would print each event that it can no longer send.
                logging.getLogger("prefect._internal.concurrency").addFilter(lambda _: False)


def _watch(server: PrefectServer, ended: Event, on_exit: Callable[[str], None]) -> None:
    while not ended.wait(POLL_SECONDS):
        if (message := server.exit_message()) is not None:
            # Each request would be retried for a minute.
            os.environ["PREFECT_CLIENT_MAX_RETRIES"] = "0"
            _refresh_prefect_settings()
            on_exit(message)
            return


@contextmanager
def azure_connected() -> Iterator[None]:
    """Run the block with the Azure of the environment or of a Prefect block, or with a local one if none is configured.

    Raises:
        ConfigurationError: A setting or the Prefect server cannot be used.
    """
    state = state_folder()
    use_make_up_servers(state)
    is_local = read_settings().may_be_local
    if prefect_api_url():
        require_reachable_prefect()
        from tasks.azure.block import block_values  # noqa: PLC0415 - imports Prefect, which is slow

        is_local = is_local and not block_values()
    if not is_local:
        yield
        return
    print_message("No Azure is configured: starting a local one for this check.")
    with LocalAzure(state) as local:
        os.environ.update(local.wait())
        yield


def prepare_environment() -> None:
    """Prepare the environment variables of this process for the libraries that it uses.

    Raises:
        ConfigurationError: A variable names a certificate that cannot be used.
    """
    check_certificate_variables()
    for name in bypass_proxies_on_loopback():
        print_message(f"{name} is ignored, because it is not the URL of an http, https or socks5 proxy.")
    ensure_home_folder(state_folder())


def use_make_up_servers(state: Path) -> None:
    """Use the servers of `make up` in this state folder, unless another Prefect server is configured."""
    up = read_published_addresses(
        state, lambda: print_message("Waiting for `make up`, which is starting in this folder.")
    )
    _prefer_configured_prefect()
    if not up or prefect_api_url() not in {None, up["PREFECT_API_URL"]}:
        return
    os.environ.update({name: value for name, value in up.items() if name.startswith("PREFECT_")})
    os.environ.setdefault("PREFECT_LOCAL_STORAGE_PATH", str(state / "storage"))
    if not read_settings().is_configured:
        os.environ.update(up)
    if "prefect" in sys.modules:
        _refresh_prefect_settings()


def _prefer_configured_prefect() -> None:
    """Let the user's own Prefect server take precedence over the `prefect.toml` of `make up`.

    Prefect reads each setting by itself. Without this, it would combine the URL of one server and the password of another.
    """
    delete_stale_prefect_toml()
    toml = read_published_prefect_toml()
    if not toml or not _may_have_prefect_api_url():
        return
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, load_current_profile  # noqa: PLC0415 - slow

    profile = load_current_profile().to_environment_variables()
    url, password = PREFECT_API_URL.value(), PREFECT_API_AUTH_STRING.value()
    if url == toml["PREFECT_API_URL"] and "PREFECT_API_URL" not in os.environ:
        url = profile.get("PREFECT_API_URL", url)
    if password == toml["PREFECT_API_AUTH_STRING"]:
        password = profile.get("PREFECT_API_AUTH_STRING", "")
    if url != toml["PREFECT_API_URL"]:
        os.environ["PREFECT_API_URL"], os.environ["PREFECT_API_AUTH_STRING"] = url, password or ""
        _refresh_prefect_settings()


def prefect_api_url() -> str | None:
    """Return the API URL of the configured Prefect server, or None."""
    if not _may_have_prefect_api_url():
        return None
    from prefect.settings import PREFECT_API_URL  # noqa: PLC0415 - takes seconds

    url: str | None = PREFECT_API_URL.value()
    return url


def _refresh_prefect_settings() -> None:
    """Reload Prefect's settings, which it may have read before this process set `PREFECT_API_URL` and the log levels."""
    from prefect.context import refresh_global_settings_context  # noqa: PLC0415 - Prefect is imported by now
    from prefect.logging.configuration import setup_logging  # noqa: PLC0415 - as above

    refresh_global_settings_context()
    setup_logging()


def require_reachable_prefect() -> None:
    """Check that the configured Prefect server responds, and accepts the password.

    Raises:
        ConfigurationError: The server does not respond, rejects the password, or is not a Prefect server.
    """
    from prefect import get_client  # noqa: PLC0415 - Prefect is imported by now

    try:
        with get_client(sync_client=True) as client:
            # Unlike a health check, this requires the password.
            client.read_flows(limit=1)
    except Exception as error:
        raise ConfigurationError(describe_prefect_error(error, prefect_api_url())) from error


def _use_azure(local: LocalAzure | None) -> None:
    """Use the Azure of the environment or of a Prefect block, or else the local one.

    Stop the local Azure if a block configures another.

    Raises:
        ConfigurationError: An account does not respond, or rejects the credentials. Nothing was created.
    """
    from tasks.azure.accounts import batch_account, blob_account  # noqa: PLC0415 - imported by now
    from tasks.azure.block import block_values, configured_azure  # noqa: PLC0415 - imported by now
    from tasks.steps.check import advice  # noqa: PLC0415 - imported by now

    if local is not None:
        if not block_values():
            print_message("No Azure is configured: starting a local one for this run.")
            os.environ.update(local.wait())
            return
        local.stop()
    try:
        # The retry is for a machine whose clock is wrong: its second request has the service's time.
        batch_account().list_images(retry_total=1)
        blob_account().check(retry_total=1)
    except ServiceError as error:
        raise ConfigurationError(f"{error} {advice(error, configured_azure())}") from error


def _wait_for_history(server: PrefectServer) -> None:
    from tasks.report.timing import finished_task_runs  # noqa: PLC0415 - imported by now

    timeout_seconds = HISTORY_TIMEOUT_SECONDS + HISTORY_TIMEOUT_SECONDS_PER_TASK_RUN * len(finished_task_runs)
    _send_logs_and_events(timeout_seconds)
    if not server.wait_for_history(finished_task_runs, timeout_seconds):
        print_message(f"The history of this run is incomplete: recording it took longer than {timeout_seconds:.0f} s.")
    finished_task_runs.clear()


def _send_logs_and_events(timeout_seconds: float) -> None:
    """Send what Prefect has not yet sent, and disconnect from the server. A later run may have another one."""
    from prefect.events.worker import EventsWorker  # noqa: PLC0415 - imported by now
    from prefect.logging.handlers import APILogWorker  # noqa: PLC0415 - imported by now

    def drain() -> None:
        for worker in (APILogWorker, EventsWorker):
            worker.drain_all(timeout=timeout_seconds, at_exit=False)

    # In a thread with a running event loop, Prefect would not wait.
    sending = Thread(target=drain)
    sending.start()
    sending.join()


def _may_have_prefect_api_url() -> bool:
    """Check whether any source of Prefect settings may contain an API URL.

    Importing Prefect to read its settings takes seconds, which would delay the start of the server.
    Sources: https://docs.prefect.io/v3/concepts/settings-and-profiles
    """
    if os.environ.get("PREFECT_API_URL") or os.environ.get("PREFECT_PROFILE"):
        return True
    home = Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect")
    profiles = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml")
    needles = {
        profiles: "",
        **({} if read_published_prefect_toml() else {PREFECT_TOML: ""}),
        Path("pyproject.toml"): "[tool.prefect",
        Path(".env"): "PREFECT_",
    }
    return any(path.is_file() and word in path.read_text("utf-8", "replace") for path, word in needles.items())
