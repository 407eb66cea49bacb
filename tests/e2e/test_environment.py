"""`topn` in the environments of users: their modules, proxies, passwords, character sets, output and signals."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests_support import processes_of, wait_until
from up_support import COMMAND, write_hiding_modules

from flows.servers.processes import Service, prefect_environment

# Nothing listens on this port.
DEAD_PROXY = "http://127.0.0.1:9"


@pytest.fixture
def texts():
    Path("a b.txt").write_text("one two two naïve")
    Path("c.txt").write_text("three")
    return ["a b.txt", "c.txt"]


def test_run_ignores_environment_of_user(topn_alone, texts, tmp_path):
    """Modules of the user, proxies, a password in `~/.netrc` and the character set change nothing."""
    executed = write_hiding_modules(Path(), Path("library"))
    netrc = Path(topn_alone.environment["HOME"], ".netrc")
    netrc.write_text("default login me password secret\n")
    netrc.chmod(0o600)
    proxies = dict.fromkeys(("HTTP_PROXY", "https_proxy", "all_proxy"), DEAD_PROXY)

    done = topn_alone(
        "run",
        *texts,
        PYTHONPATH=f"library{os.pathsep}{os.pathsep}.",
        PYTHONIOENCODING="ascii",
        NO_PROXY="example.com",
        ALL_PROXY="socks://127.0.0.1:9/",
        **proxies,
        timeout=240,
    )

    assert done.returncode == 0, done.stderr
    assert "ALL_PROXY is ignored" in done.stderr
    assert "na?ve" in done.stdout
    assert not executed.exists(), executed.read_text()


@pytest.mark.parametrize("command", ["plan", "check", "sweep", "run", "run --json"])
def test_output_errors_keep_exit_status(topn, texts, command):
    arguments = command.split() + (texts if command.startswith(("plan", "run")) else [])
    environment = topn.environment_with({"LC_ALL": "C", "PYTHONIOENCODING": "ascii"})
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*COMMAND, *arguments], env=environment, stdout=full, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)
    if command != "sweep":
        assert b"No space left on device" in done.stderr


def test_closed_streams_keep_exit_status(topn, texts):
    read, write = os.pipe()
    os.close(read)
    closed_early = [*COMMAND, "run", "--json", *texts]
    with open(write, "wb") as pipe:
        assert (
            subprocess.run(
                closed_early, env=topn.environment_with({}), stdout=pipe, stderr=pipe, check=False
            ).returncode
            == 0
        )
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *closed_early]
    assert subprocess.run(closed, env=topn.environment_with({}), check=False).returncode == 0


def test_ignored_signals_stay_ignored(topn_alone, texts):
    """As with `nohup`, in the command and in its servers, which receive SIGTERM only from the command.

    Node.js, which runs Azurite, handles all signals again. It has a session of its own.
    """
    shell = ["sh", "-c", "trap '' HUP INT TERM; exec \"$@\"", "sh", *COMMAND, "run", *texts]
    process = subprocess.Popen(
        shell,
        env=topn_alone.environment_with({}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    state = topn_alone.environment["TOPN_STATE"]
    log = Path(state, "localbatch.log")
    wait_until(lambda: log.exists() and "ready" in log.read_text(), "the local Azure is up", while_running=process)
    for number in (signal.SIGHUP, signal.SIGINT):
        for pid, command_line in processes_of(state):
            if b"azurite" not in command_line:
                os.kill(int(pid), number)

    # Now a flow is running, and Prefect handles SIGTERM.
    line = process.stdout.readline()
    while line and "staged" not in line:
        line = process.stdout.readline()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        process.send_signal(number)

    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert "2 counted" in output
    wait_until(lambda: not processes_of(state), "every process has ended")


@contextmanager
def own_prefect_server(folder, **variables):
    """Run a user's Prefect server with other settings than ours, and yield its API URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        environment = prefect_environment(folder) | variables
        command = ["flows.servers.prefect_server", "--fd", str(listener.fileno())]
        with Service("server", command, folder / "log", environment, inherited_fds=[listener.fileno()]):
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/api"


def test_user_server_with_password_and_limit(topn, texts, tmp_path):
    folder = tmp_path / "server"
    limited = {"PREFECT_SERVER_API_MAX_PARAMETER_SIZE": "1000", "PREFECT_SERVER_API_AUTH_STRING": "me:secret"}
    with own_prefect_server(folder, **limited) as url:
        for command in (["run", *texts], ["check"], ["sweep"]):
            done = topn(*command, PREFECT_API_URL=url, PREFECT_API_AUTH_STRING="me:wrong")
            assert (done.returncode, done.stdout) == (2, "")
            assert done.stderr == (
                f"The Prefect server at {url} rejected the password (HTTP 401). Set `PREFECT_API_AUTH_STRING`, or "
                "`PREFECT_API_KEY` for Prefect Cloud.\n"
            )

        variables = {"PREFECT_API_URL": url, "PREFECT_API_AUTH_STRING": "me:secret"}
        names = [f"a long name of a file {number}.txt" for number in range(40)]
        for name in names:
            Path(name).write_text(name)
        done = topn("run", *names, **variables)
        assert (done.returncode, done.stdout) == (2, "")
        assert re.fullmatch(r"The Prefect server accepts no more than 1,000 bytes of .*\n", done.stderr)
        assert topn("run", "a long*.txt", **variables).returncode == 0


# A runner starts other processes, which import the script again.
SERVE = """
from flows.topn import topn

if __name__ == "__main__":
    topn.serve(name="served", pause_on_shutdown=False)
"""

PARENT = """
from prefect import flow

from flows.topn import topn

@flow
def parent(inputs: list[str]):
    return topn(inputs, return_state=True).type.value

if __name__ == "__main__":
    parent.serve(name="served", pause_on_shutdown=False)
"""


def read_state(client, run):
    return client.read_flow_run(run.id).state


@pytest.mark.parametrize(("script", "name"), [(SERVE, "topn/served"), (PARENT, "parent/served")])
def test_served_flow_runs(topn, prefect_api, texts, script, name):
    from prefect import get_client  # noqa: PLC0415 - takes seconds
    from prefect.settings import PREFECT_API_URL, temporary_settings  # noqa: PLC0415 - as above

    Path("serve.py").write_text(script)
    environment = topn.environment_with({"PREFECT_RUNNER_POLL_FREQUENCY": "1"})
    with Path("log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "serve.py"], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        wait_until(lambda: name in Path("log").read_text(), "the flow is served", while_running=server)
        with temporary_settings({PREFECT_API_URL: prefect_api}), get_client(sync_client=True) as client:
            deployment = client.read_deployment_by_name(name)
            run = client.create_flow_run_from_deployment(deployment.id, parameters={"inputs": texts})
            wait_until(lambda: read_state(client, run).is_final(), "the run has ended", seconds=120)
            assert read_state(client, run).is_completed(), Path("log").read_text()
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)
    assert json.loads(Path("results/c_OUTPUT.json").read_text())["words"] == 1
