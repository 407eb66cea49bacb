"""An interrupt ends a command with status 130, whatever the code that it hits makes of it."""

import os
import signal

import pytest

from flows.cli import main
from flows.cli.exit_status import EXIT_INTERRUPTED
from tasks.errors import ConfigurationError


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("surfaces_as", [KeyboardInterrupt, ValueError, ConfigurationError])
def test_interrupt_exits_130_whatever_it_surfaces_as(monkeypatch, capsys, number, surfaces_as):
    def interrupted(_options):
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt as error:
            raise surfaces_as("Error in a callback: KeyboardInterrupt") from error

    monkeypatch.setitem(main.COMMANDS, "check", interrupted)
    assert main.main(["check"]) == EXIT_INTERRUPTED
    assert "Interrupted." in capsys.readouterr().err


def test_error_without_an_interrupt_is_raised(monkeypatch):
    def failed(_options):
        raise ValueError("a defect")

    monkeypatch.setitem(main.COMMANDS, "check", failed)
    with pytest.raises(ValueError, match="a defect"):
        main.main(["check"])
