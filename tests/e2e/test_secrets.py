"""No account key and no signature can be read anywhere: not in logs, databases, results, reports, files or processes.

Runs that succeed and runs that fail in every way, with keys that exist nowhere else; then everything that they wrote
or started is searched for the keys, and for the signature of every URL that the Batch service was given.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import urllib.request
from types import SimpleNamespace

import pytest
from secret_search import Processes, Search
from tests_support import REPOSITORY, wait_until

from flows.services import PrefectServer
from localbatch import LocalAzure, server

# A whole campaign in one fixture: two minutes.
pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

# Letters and digits only, so that no encoding of texts changes them.
BATCH_KEY = base64.b64encode(b"the sentinel among all the batch keys of this test").decode()
STORAGE_KEY = base64.b64encode(b"another sentinel for the storage account, of 64 bytes exactly...").decode()
# A service quotes what it was given.
QUOTED = "cXVvdGVkIGJ5IHRoZSBzZXJ2aWNl"
QUOTE = f"The URL https://a.example/in/blob?sv=2026-01-01&sig={QUOTED}%3D is refused"

# Every logger says all that it can, on the console; to Prefect all but those by which that is told.
DEBUG = {
    "PREFECT_LOGGING_LEVEL": "DEBUG",
    "PREFECT_LOGGING_ROOT_LEVEL": "DEBUG",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "DEBUG",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "azure,urllib3,requests,tasks,flows",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}


class Campaign:
    """Runs on a local Azure and a Prefect server of their own, and all that they leave."""

    def __init__(self, folder, azure, api_url):
        self.folder = folder
        self.azure = azure
        self.output = folder / "output"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("TOPN_", "PREFECT_"))},
            **DEBUG,
            "PREFECT_API_URL": api_url,
            "PREFECT_HOME": str(folder / "prefect-home"),
            "PREFECT_LOCAL_STORAGE_PATH": str(folder / "storage"),
            "TOPN_STATE": str(folder / "state"),
            "PWD": str(REPOSITORY),
        }
        self.output.mkdir()
        (folder / "work").mkdir()

    def write(self, *names, content="one two two"):
        for name in names:
            path = self.folder / "work" / name
            path.write_text(f"{name} {content}")
        return names

    def topn(self, title, *arguments, status):
        """Run `topn`; the keys are in `.env` of its folder, and nowhere else."""
        self._run(title, [sys.executable, "-m", "flows.cli", *arguments], self.folder / "work", status)
        self.azure.faults.clear()
        self.azure.storage_faults.clear()

    def prefect(self, *arguments):
        self._run("prefect", [sys.executable, "-m", "prefect", *arguments], REPOSITORY, 0)

    def python(self, source):
        self._run("python", [sys.executable, "-"], REPOSITORY, 0, source)

    def _run(self, title, command, cwd, status, source=""):
        done = subprocess.run(
            command,
            cwd=cwd,
            env=self.environment,
            input=source,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        (self.output / f"{title}-{len(list(self.output.iterdir()))}.out").write_text(done.stdout + done.stderr)
        assert done.returncode == status, done.stdout[-2000:] + done.stderr[-4000:]

    def deployed_run(self, **parameters):
        """Run the deployment under a worker; the keys are in the Prefect block."""
        with (self.output / "worker.out").open("wb") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "prefect", "worker", "start", "--pool", "topn-pool"],
                env=self.environment | {"PREFECT_WORKER_QUERY_SECONDS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            [deployment] = self.ask("/deployments/filter", flows={"name": {"any_": ["topn"]}})
            run = self.ask(f"/deployments/{deployment['id']}/create_flow_run", parameters=parameters)
            ended = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
            wait_until(
                lambda: (
                    self.ask("/flow_runs/filter", flow_runs={"id": {"any_": [run["id"]]}})[0]["state_type"] in ended
                ),
                "the deployed run has ended",
                while_running=worker,
                seconds=120,
            )
        finally:
            worker.terminate()
            worker.wait(60)

    def ask(self, path, **body):
        request = urllib.request.Request(
            self.environment["PREFECT_API_URL"] + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)


def save_block(azure):
    """A program that saves the block with the keys, and has them from its standard input."""
    values = {name.removeprefix("TOPN_").lower(): value for name, value in azure.environment.items()}
    return f"from tasks.azure_block import TopnAzure\nTopnAzure(**{values!r}).save('default', overwrite=True)\n"


def run_all(campaign):
    """Runs that end well and in every bad way."""
    azure, write = campaign.azure, campaign.write
    dotenv = campaign.folder / "work" / ".env"
    dotenv.write_text("".join(f"{name}={value}\n" for name, value in azure.environment.items()))
    keep = ("--keep-containers", "--keep-job", "--keep-pool")

    # A pack, and a Batch task with a file of its own.
    names = write("a.txt", "b.txt", "c.txt")
    bad = write("bad.txt", content="\0")
    arguments = (*names[:2], *bad, names[2], "--files-per-task", "3", "--json", "--report", "report", *keep)
    campaign.topn("good", "run", *arguments, status=1)

    # Whole requests are refused, Batch tasks, downloads and uploads; some refusals quote a URL.
    azure.faults.add("answer", operation="create_task_collection", status=400, code="InvalidRequestBody", message=QUOTE)
    azure.storage_faults.add("answer", operation="put_blob", path="*-in/*", status=403, message=QUOTE)
    azure.storage_faults.add("answer", operation="get_blob", path="*-in/*", status=404, code="BlobNotFound")
    azure.faults.add("upload_fails", task="*")
    campaign.topn("refused", "run", *write(*(f"r{number}.txt" for number in range(5))), "--report", "report2", status=1)

    azure.faults.add("start_task_fails", exit_code=9)
    campaign.topn("start task", "run", *write("s.txt"), status=1)
    azure.faults.add("answer", operation="create_pool", status=409, code="PoolQuotaReached", message=QUOTE)
    campaign.topn("exception", "run", *write("e.txt"), "--json", status=1)
    campaign.topn("sweep", "sweep", "--dry-run", status=0)

    dotenv.unlink()
    campaign.prefect("work-pool", "create", "topn-pool", "--type", "process", "--overwrite")
    campaign.prefect("--no-prompt", "deploy", "--all")
    campaign.python(save_block(azure))
    azure.faults.add("allocation_fails", code="Unallocatable", message=QUOTE)
    inputs = [str(campaign.folder / "work" / name) for name in write("w1.txt", "w2.txt")]
    campaign.deployed_run(inputs=inputs, output_folder=str(campaign.folder / "deployed"), keep_pool=True)


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    """All runs, and the search for what must not be found."""
    folder = tmp_path_factory.mktemp("secrets")
    search = Search(batch_key=BATCH_KEY, storage_key=STORAGE_KEY, quoted=QUOTED)
    read_body = server.read_body
    bodies = []

    async def recording(receive):
        bodies.append(await read_body(receive))
        return bodies[-1]

    patch = pytest.MonkeyPatch()
    patch.setattr(server, "read_body", recording)
    azure = LocalAzure(
        state_dir=folder / "azure", pace="instant", storage_faults=True, key=BATCH_KEY, storage_key=STORAGE_KEY
    )
    with patch.context(), azure, Processes() as processes, PrefectServer(folder / "prefect") as prefect:
        prefect.wait()
        done = Campaign(folder, azure, prefect.api_url)
        run_all(done)
        # What a node has, as it has it: its files go with its pool.
        shutil.copytree(folder / "azure" / "nodes", folder / "nodes", symlinks=True)
        signatures = set(re.findall(r"\bsig=([\w%+/=-]+)", "\n".join(body.decode() for body in bodies if body)))
        for number, signature in enumerate(sorted(signatures)):
            search.add(f"signature {number}", signature)
    patch.undo()
    return SimpleNamespace(folder=folder, search=search, signatures=signatures, processes=processes, output=done.output)


def test_no_secret_is_in_any_file_or_database(campaign):
    """Output, logs, `--json`, pages, results, storage and database of Prefect, blobs, directories of nodes."""
    assert campaign.search.found_below(campaign.folder) == {}


def test_no_secret_is_in_a_command_line_or_an_environment(campaign):
    # The storage account itself is told its key so.
    texts = [text for text in campaign.processes.texts if b"AZURITE_ACCOUNTS=" not in text]
    assert [text for text in texts if campaign.search.found_in(text)] == []


def test_the_campaign_had_secrets_in_it_and_said_all_that_it_could(campaign):
    """Else nothing found would mean nothing."""
    assert len(campaign.signatures) > 10
    said = "".join(path.read_text() for path in campaign.output.iterdir())
    assert "| DEBUG" in said
    assert "urllib3" in said
    assert "Traceback" in said
    assert said.count("sig=[hidden]") > 5
    assert any(b"AZ_BATCH_TASK_ID=" in text for text in campaign.processes.texts)
    assert {"startup", "workitems"} <= {path.name for path in (campaign.folder / "nodes").rglob("*")}
    assert list((campaign.folder / "storage").iterdir())
    with sqlite3.connect(campaign.folder / "prefect" / "prefect.db") as database:
        logs = "".join(message for (message,) in database.execute("SELECT message FROM log"))
        names = {name for (name,) in database.execute("SELECT name FROM log")}
        assert [count for (count,) in database.execute("SELECT count(*) FROM block_document")] == [1]
    database.close()
    assert "sig=[hidden]" in logs
    assert [name for name in names if name.startswith(("azure", "urllib3"))]
