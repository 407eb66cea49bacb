"""Lead a command to its Prefect server and its Azure: those that are configured, those of `make up`, or new ones."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flows.console import say, show_starting
from flows.servers.addresses import addresses_of_up
from flows.servers.processes import LocalAzure, PrefectServer, alone_in
from tasks.azure.settings import load_settings, read_settings, state_folder
from tasks.errors import ConfigurationError, ServiceError

# Recording a task run took a Prefect server 60 ms on a busy machine; this leaves a wide margin.
HISTORY_SECONDS = 30.0
HISTORY_SECONDS_PER_TASK_RUN = 0.5


@contextmanager
def connected() -> Iterator[None]:
    """Have a Prefect server and an Azure meanwhile, named by this process's environment.

    A server that is started has its data in the state folder, and is given time to write the history down.

    Raises:
        ConfigurationError: A setting or a server cannot be used; nothing was created.
    """
    state = state_folder()
    use_up(state)
    azure: LocalAzure | None = None
    server: PrefectServer | None = None
    needs_prefect = not prefect_api_url()
    with ExitStack() as services:
        if needs_prefect:
            services.enter_context(alone_in(state, lambda: say("Another run uses this folder; waiting for its end.")))
        if read_settings().may_be_local:
            azure = services.enter_context(LocalAzure(state))
        elif needs_prefect:
            load_settings()
        if needs_prefect:
            server = services.enter_context(PrefectServer(state))
            os.environ["PREFECT_API_URL"] = server.api_url
            os.environ.setdefault("DO_NOT_TRACK", "1")
            os.environ["PREFECT_LOCAL_STORAGE_PATH"] = str(state / "storage")
        # The run's logs are in the Prefect UI; here, people see progress and results.
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
        with show_starting():
            import flows.topn  # noqa: F401, PLC0415 - takes seconds, while the servers start

            _refresh_prefect_settings()
            if server is not None:
                server.wait()
            else:
                require_reachable_prefect()
            _use_azure(azure)
        try:
            yield
        finally:
            if server is not None:
                _wait_for_history(server)


@contextmanager
def azure_connected() -> Iterator[None]:
    """Have an Azure meanwhile, named by this process's environment or a Prefect block: a local one if none is configured.

    Raises:
        ConfigurationError: A setting or the Prefect server cannot be used.
    """
    state = state_folder()
    use_up(state)
    is_local = read_settings().may_be_local
    if is_local and prefect_api_url():
        require_reachable_prefect()
        from tasks.azure.block import block_values  # noqa: PLC0415 - brings Prefect: slow

        is_local = not block_values()
    if not is_local:
        yield
        return
    say("No Azure is configured: starting a local one for this.")
    with LocalAzure(state) as local:
        os.environ.update(local.wait())
        yield


def use_up(state: Path) -> None:
    """Use what `make up` runs in this state folder, unless another Prefect server is configured."""
    up = addresses_of_up(state, lambda: say("`make up` is starting in this folder; waiting for it."))
    if not up or prefect_api_url() not in {None, up["PREFECT_API_URL"]}:
        return
    os.environ["PREFECT_API_URL"] = up["PREFECT_API_URL"]
    os.environ.setdefault("PREFECT_LOCAL_STORAGE_PATH", str(state / "storage"))
    if not read_settings().is_configured:
        os.environ.update(up)
    if "prefect" in sys.modules:
        _refresh_prefect_settings()


def prefect_api_url() -> str | None:
    """Say which Prefect server is configured, if one is."""
    if not _prefect_may_be_configured():
        return None
    from prefect.settings import PREFECT_API_URL  # noqa: PLC0415 - takes seconds

    url: str | None = PREFECT_API_URL.value()
    return url


def _refresh_prefect_settings() -> None:
    """Let Prefect read the environment again, which it may have read before this process set its server."""
    from prefect.context import refresh_global_settings_context  # noqa: PLC0415 - imported by now

    refresh_global_settings_context()


def require_reachable_prefect() -> None:
    """See that the configured Prefect server answers.

    Raises:
        ConfigurationError: It does not.
    """
    from prefect import get_client  # noqa: PLC0415 - imported by now

    with get_client(sync_client=True) as client:
        if client.api_healthcheck() is not None:
            raise ConfigurationError(
                f"No Prefect server answers at {prefect_api_url()}: start it, or unset PREFECT_API_URL."
            )


def _use_azure(local: LocalAzure | None) -> None:
    """Use the configured Azure, which may be so in a Prefect block only, or the local one that was started.

    Raises:
        ConfigurationError: An account does not answer, or does not take the credentials; nothing was created.
    """
    from tasks.azure.accounts import batch_account, blob_account  # noqa: PLC0415 - imported by now
    from tasks.azure.block import block_values, configured_azure  # noqa: PLC0415 - imported by now
    from tasks.steps.check import advice  # noqa: PLC0415 - imported by now

    if local is not None:
        if not block_values():
            say("No Azure is configured: starting a local one for this run.")
            os.environ.update(local.wait())
            return
        local.stop()
    try:
        batch_account().images(retry_total=0)
        blob_account().check(retry_total=0)
    except ServiceError as error:
        raise ConfigurationError(f"{error} {advice(error, configured_azure())}") from error


def _wait_for_history(server: PrefectServer) -> None:
    from prefect.logging.handlers import APILogHandler  # noqa: PLC0415 - imported by now

    from tasks.report.timing import ended_task_runs  # noqa: PLC0415 - imported by now

    APILogHandler().flush()
    give_up_seconds = HISTORY_SECONDS + HISTORY_SECONDS_PER_TASK_RUN * len(ended_task_runs)
    if not server.wait_for_history(ended_task_runs, give_up_seconds):
        say("The history of this run is not complete: the Prefect server did not write it down in time.")


def _prefect_may_be_configured() -> bool:
    """Look whether any of the places where Prefect finds its API's address says something.

    To ask Prefect itself takes seconds, in which its server could start.
    """
    if os.environ.get("PREFECT_API_URL") or os.environ.get("PREFECT_PROFILE"):
        return True
    home = Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect")
    profiles = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml")
    mentions = {
        profiles: "",
        Path("prefect.toml"): "",
        Path("pyproject.toml"): "[tool.prefect",
        Path(".env"): "PREFECT_",
    }
    return any(path.is_file() and word in path.read_text("utf-8", "replace") for path, word in mentions.items())
