"""Exit codes of the `topn` command."""

from __future__ import annotations

EXIT_FAILED = 1
EXIT_USAGE = 2
# Source: POSIX shells return 128 + SIGINT.
EXIT_INTERRUPTED = 130
