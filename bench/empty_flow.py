"""An empty Prefect flow that runs like the flow of `topn run`: with a server whose database is in the state folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from flows.servers.processes import PrefectServer


def main() -> int:
    """Run the empty flow. The only argument is the state folder."""
    state = Path(sys.argv[1])
    with PrefectServer(state) as server:
        os.environ.update(server.client_environment)
        os.environ["PREFECT_LOCAL_STORAGE_PATH"] = str(state / "storage")
        os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
        from prefect import flow  # noqa: PLC0415 - takes seconds, during which the server starts

        server.wait()

        @flow
        def empty() -> None:
            """Return immediately."""

        empty()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
