"""A deterministic simulation of whole runs. Each seed is one history, from sweep to cleanup, and replays exactly.

The product's own code runs: steps, flow, retries, cached results, cleanup hook, sweep and command line. Requests reach
localbatch's own handlers, scheduler and rules. Four parts are replaced by stand-ins that pass the same contract tests:
Prefect's engine (`engine`), the clock (`world`), the wire below the official SDKs (`wire`) and the storage account
(`storage`).

Some things need the real processes of tests/e2e. Simulated nodes (`nodes`) call the functions of the task script and run
no shell scripts. All code runs on one thread that switches only between requests, so there are no thread races.
The simulation has no sockets and no system signals. It covers Prefect and Azurite only as far as the contracts do.
"""
