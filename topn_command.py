"""The process of the `topn` command.

This module is outside the packages, because a folder in PYTHONPATH may contain other packages of the same names, or a
module that hides one of the standard library. It imports nothing that could be hidden before PYTHONPATH is gone.
"""

import gc
import os
import sys


def main() -> int:
    """Run the command, and return its exit status."""
    if "PYTHONPATH" in os.environ:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        os.execve(sys.executable, sys.orig_argv, environment)  # noqa: S606 - the same process, with another environment
    # The imports create a million permanent objects. With the default of 700 new objects, collecting garbage among them
    # takes a fifth of the start.
    gc.set_threshold(50_000)
    from flows.cli.process import run_process  # noqa: PLC0415 - see the docstring

    return run_process()


if __name__ == "__main__":
    sys.exit(main())
