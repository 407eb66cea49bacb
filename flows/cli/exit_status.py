"""Exit codes of the `topn` command."""

from __future__ import annotations

EXIT_FAILED = 1
EXIT_USAGE = 2
# Shells return 128 plus the number of the signal, here SIGINT.
EXIT_INTERRUPTED = 130
