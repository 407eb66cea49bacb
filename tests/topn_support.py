"""The `topn` command and the flow, called in this process but isolated like separate processes."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from copy import deepcopy
from functools import cache
from types import SimpleNamespace
from unittest import mock


class Topn:
    """Runs `topn` in this process and the current folder, with `environment` added to `os.environ`."""

    def __init__(self, **environment):
        self.environment = environment

    def __call__(self, *arguments, stdin="", **variables):
        """Run the command and return its `returncode`, `stdout` and `stderr`."""
        from flows.cli.main import main  # noqa: PLC0415 - after the environment is clean

        return self.call(main, arguments, stdin=stdin, **variables)

    def json(self, *arguments, status=0, **variables):
        """Run `topn run --json` and return the document that it prints."""
        done = self("run", "--json", *arguments, **variables)
        assert done.returncode == status, done.stderr
        return json.loads(done.stdout)

    def call(self, function, *arguments, stdin="", **variables):
        """Call a function that returns an exit status or raises `SystemExit`, and return the same values."""
        stdout, stderr = io.StringIO(), io.StringIO()
        with (
            self.environ(**variables),
            redirect_stdout(stdout),
            redirect_stderr(stderr),
            mock.patch.object(sys, "stdin", io.StringIO(stdin)),
        ):
            try:
                status = function(*arguments)
            except SystemExit as exit_:
                status = exit_.code
        return SimpleNamespace(returncode=status, stdout=stdout.getvalue(), stderr=stderr.getvalue())

    @contextmanager
    def environ(self, **variables):
        """Run the block with this environment and `variables`."""
        with process_environment(**(self.environment | variables)):
            yield


def environment_of(azure, api_url, state):
    """Return the variables for an Azure, a Prefect server and a state folder."""
    return {
        **azure.environment,
        "PREFECT_API_URL": api_url,
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
        "TOPN_STATE": str(state),
    }


@contextmanager
def process_environment(**variables: str) -> Iterator[None]:
    """Run the block with `variables` set, and restore the state of this process afterwards."""
    from prefect import context  # noqa: PLC0415 - takes seconds
    from prefect.events.worker import EventsWorker  # noqa: PLC0415 - as above
    from prefect.logging.handlers import APILogWorker  # noqa: PLC0415 - as above

    from flows.servers import connect  # noqa: PLC0415 - as above
    from tasks import clock, redaction  # noqa: PLC0415 - as above
    from tasks.report import timing  # noqa: PLC0415 - as above

    keys, make_record = set(redaction._keys), logging.getLogRecordFactory()
    with (
        mock.patch.dict(os.environ, variables),
        mock.patch.object(context, "GLOBAL_SETTINGS_CONTEXT", context.GLOBAL_SETTINGS_CONTEXT),
        mock.patch.object(connect, "_refresh_prefect_settings", _refresh_prefect_settings),
    ):
        profile, settings = _prefect_settings(frozenset(os.environ.items()))
        try:
            with context.SettingsContext(profile=profile, settings=settings):
                yield
        finally:
            # These workers stay connected to the server that they started with.
            for worker in (EventsWorker, APILogWorker):
                worker.drain_all(at_exit=False)
            timing.finished_task_runs.clear()
            clock._ahead.clear()
            redaction._keys.intersection_update(keys)
            logging.setLogRecordFactory(make_record)


def _refresh_prefect_settings():
    """Do the same as `connect`, but read the settings and the configuration of logging once for each environment."""
    from prefect import context  # noqa: PLC0415 - takes seconds
    from prefect.logging import configuration  # noqa: PLC0415 - as above
    from prefect.settings import get_current_settings  # noqa: PLC0415 - as above

    profile, settings = _prefect_settings(frozenset(os.environ.items()))
    context.GLOBAL_SETTINGS_CONTEXT = context.SettingsContext(profile=profile, settings=settings)

    read, logging_settings = configuration.load_logging_config, get_current_settings().logging.model_dump_json()
    with mock.patch.object(
        configuration,
        "load_logging_config",
        lambda path: deepcopy(_logging_configuration(read, path, logging_settings)),
    ):
        configuration.setup_logging()


@cache
def _logging_configuration(read, path, logging_settings):
    """Read the configuration, which depends on the settings of logging."""
    del logging_settings
    return read(path)


def _prefect_settings(environment):
    """Read Prefect's profile and settings, once for each environment because that takes 0.2 s."""
    return _read_prefect_settings(frozenset(item for item in environment if item[0].startswith(("PREFECT_", "HOME"))))


@cache
def _read_prefect_settings(variables):
    from prefect.context import root_settings_context  # noqa: PLC0415 - takes seconds
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY  # noqa: PLC0415 - as above

    del variables
    context = root_settings_context()
    # A flow run waits up to 1 s for its heartbeat thread. No environment variable disables heartbeats.
    return context.profile, context.settings.copy_with_update({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})
