"""An interrupt ends a command with status 130, whatever the code that it hits makes of it."""

import os
import signal

import pytest

from flows.cli import main
from flows.cli.exit_status import EXIT_FAILED, EXIT_INTERRUPTED
from tasks.errors import ConfigurationError


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("surfaces_as", [KeyboardInterrupt, ValueError, ConfigurationError])
def test_interrupt_exits_130_whatever_it_surfaces_as(monkeypatch, capsys, request, number, surfaces_as):
    def interrupted(_options):
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt as error:
            raise surfaces_as("Error in a callback: KeyboardInterrupt") from error

    monkeypatch.setitem(main.COMMANDS, "check", interrupted)
    # `nohup`, for example, starts tests with an ignored signal.
    before = signal.signal(number, signal.SIG_DFL)
    request.addfinalizer(lambda: signal.signal(number, before))
    assert main.main(["check"]) == EXIT_INTERRUPTED
    assert "Interrupted." in capsys.readouterr().err


def test_unexpected_error_prints_printable_traceback_without_secrets(monkeypatch, capsys):
    def failed(_options):
        raise ValueError("a defect\x1b[2J at /c?sig=c2VjcmV0c2VjcmV0")

    monkeypatch.setitem(main.COMMANDS, "check", failed)
    assert main.main(["check"]) == EXIT_FAILED
    stderr = capsys.readouterr().err
    assert stderr.startswith("Traceback (most recent call last):\n")
    assert stderr.endswith("ValueError: a defect\\x1b[2J at /c?sig=[hidden]\n")
