"""A deterministic simulation of whole runs: one seed is one history, from the sweep to the cleanup, and it replays exactly.

The product's own code runs: the steps, the order in which the flow calls them, retries, cached results, the cleanup
hook, the sweep and the command line. Four things are replaced, each by a stand-in that passes the same contract tests as
the real part: Prefect's engine (`engine`), the clock (`world`), the wire below the official SDKs (`wire`), and the
storage account (`storage`). Requests reach localbatch's own handlers, scheduler and rules.

What the simulation cannot show, tests/e2e shows with real processes: shell scripts on nodes (simulated nodes call the
functions of the task script, `nodes`), races between threads (all runs on one thread here, and switches between requests
only), sockets, signals at the level of the system, and what a real Prefect server and Azurite do beyond the contracts.
"""
