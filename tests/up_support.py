"""`make up` as a process, and commands that a user runs in a second terminal."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import uuid
from pathlib import Path

from tests_support import REPOSITORY, processes_of, send_to_prefect, wait_until

# The first start writes Prefect's database, perhaps on a busy machine.
START_SECONDS = 200
STOP_SECONDS = 100
# A busy Prefect server responds late.
RESPONSE_SECONDS = 65
POST_SECONDS = 200

COMMAND = [str(Path(sys.executable).with_name("topn"))]

# Of the standard library, of packages that Prefect needs, and of this repository.
HIDING_MODULES = (
    "random",
    "ctypes",
    "asyncio",
    "json",
    "ssl",
    "prefect",
    "httpx",
    "uvicorn",
    "localbatch",
    "flows",
    "tasks",
)

USUAL_PORTS = (4200, 10100, 10000)


def make_checkout(folder):
    """Create a folder with links to the files of this repository and its `.venv`."""
    folder.mkdir()
    for path in REPOSITORY.iterdir():
        if not path.name.startswith(".") and path.name != "results":
            (folder / path.name).symlink_to(path)
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


def write_hiding_modules(*folders):
    """Write modules that hide others, as users do by accident, and return the file in which they would note their use.

    A folder does not get a module that it has already.
    """
    executed = folders[0].absolute() / "executed.log"
    code = f"import sys\nopen({str(executed)!r}, 'a').write(f'{{__file__}} {{sys.argv}}\\n')\nraise SystemExit(1)\n"
    for folder in folders:
        folder.mkdir(exist_ok=True)
        for module in HIDING_MODULES:
            if not (folder / module).exists() and not (folder / f"{module}.py").exists():
                (folder / f"{module}.py").write_text(code)
    return executed


class Up:
    """A `make up` process with its own state folder."""

    def __init__(self, folder, cwd=REPOSITORY, **environment):
        self.cwd = cwd
        self.state_folder = folder / "state"
        self.home = folder / "home"
        self.home.mkdir(exist_ok=True)
        self._output = folder / "up.out"
        self._environment = {"HOME": str(self.home), "TOPN_STATE": str(self.state_folder), **environment}
        self.process = None

    @property
    def output(self):
        """The text on stdout and stderr so far."""
        return self._output.read_text()

    def start(self):
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "flows.servers.up"],
                cwd=self.cwd,
                env={**os.environ, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        wait_until(
            lambda: "Ready" in self.output or self.process.poll() is not None, "it is ready", seconds=START_SECONDS
        )
        assert self.process.poll() is None, self.output
        return self

    def end(self, number=signal.SIGINT):
        """Send a signal, wait for the process and return its exit status."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self):
        return self.process.wait(STOP_SECONDS)

    def stop(self):
        """Stop the process if it is running."""
        if self.process is not None and self.process.poll() is None:
            self.end()

    @property
    def api_url(self):
        return re.search(r"^(http://127\.0\.0\.1:\d+/api)$", self.output, re.MULTILINE).group(1)

    @property
    def password(self):
        return self._exports["PREFECT_API_AUTH_STRING"]

    @property
    def _exports(self):
        return dict(re.findall(r"^export (\w+)=(\S+)$", self.output, re.MULTILINE))

    @property
    def pages_url(self):
        return self.api_url.removesuffix("/api")

    def processes(self):
        """List all processes that use the state folder."""
        return processes_of(str(self.state_folder))

    def post(self, path, **body):
        """Send a POST request to the Prefect API and return the response; the server may receive it twice."""
        give_up_at = time.monotonic() + POST_SECONDS
        while True:
            try:
                return send_to_prefect(self.api_url, path, body, password=self.password, timeout=RESPONSE_SECONDS)
            except urllib.error.HTTPError as error:
                # The database is busy. Prefect's own client retries, too.
                if error.code != 503:
                    raise
            except TimeoutError:
                # The server waits up to 60 s for a database lock, and may get it.
                pass
            assert time.monotonic() < give_up_at, f"no response to {path} in {POST_SECONDS} s"
            time.sleep(0.2)

    def create_run(self, **parameters):
        """Create a run of `topn/default`, as the form does, and return its id."""
        [deployment] = self.post("/deployments/filter", flows={"name": {"any_": ["topn"]}})
        once = {"parameters": parameters, "idempotency_key": uuid.uuid4().hex}
        return self.post(f"/deployments/{deployment['id']}/create_flow_run", **once)["id"]

    def runs(self):
        """List the ids of the flow runs that no schedule created, newest first."""
        found = self.post("/flow_runs/filter", sort="EXPECTED_START_TIME_DESC")
        return [run["id"] for run in found if not run["auto_scheduled"]]

    def state(self, flow_run_id):
        """Return the type of a flow run's state."""
        [run] = self.post("/flow_runs/filter", flow_runs={"id": {"any_": [flow_run_id]}})
        return run["state_type"]

    def second_terminal(self, *command, cwd=None, **variables):
        """Run a module in another process, where only HOME and the state folder are set."""
        inherited = {name: value for name, value in os.environ.items() if name != "PREFECT_API_AUTH_STRING"}
        return subprocess.run(
            [sys.executable, "-m", *command],
            cwd=cwd,
            env={**inherited, "HOME": str(self.home), "TOPN_STATE": str(self.state_folder), **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    def deploy_run(self, *arguments):
        """Run `prefect deployment run topn/default` with the variables that `make up` prints for export."""
        return self.second_terminal("prefect", "deployment", "run", "topn/default", *arguments, **self._exports)
