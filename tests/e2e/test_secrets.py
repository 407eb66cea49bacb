"""No account key or signature appears in logs, databases, results, reports, files or processes.

The campaign runs `topn` with unique keys, both successfully and with many kinds of failures. The tests then search
everything that the runs wrote or started for the keys and for the signature of every URL sent to the Batch service.
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
from types import SimpleNamespace

import pytest
from secret_search import Processes, Search
from tests_support import REPOSITORY, wait_until

from flows.servers.processes import PrefectServer
from localbatch import LocalAzure, local_batch

# One process runs the campaign, and all tests search its output.
pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("secrets")]

# Calls `topn` with the arguments on each input line, and prints a line with the exit status.
TOPN_CALLS = """
import json, sys
from flows.cli.main import main
for line in sys.stdin:
    print(f"status {main(json.loads(line))}", flush=True)
"""
CALL_SECONDS = 200

# Only letters and digits, so that no text encoding changes them.
BATCH_KEY = base64.b64encode(b"the sentinel among all the batch keys of this test").decode()
STORAGE_KEY = base64.b64encode(b"another sentinel for the storage account, of 64 bytes exactly...").decode()
# Services quote signed URLs in error messages.
QUOTED = "cXVvdGVkIGJ5IHRoZSBzZXJ2aWNl"
QUOTE = f"The URL https://a.example/in/blob?sv=2026-01-01&sig={QUOTED}%3D is refused"

# All loggers write debug messages to the console, and to Prefect except for the loggers of that connection.
DEBUG = {
    "PREFECT_LOGGING_LEVEL": "DEBUG",
    "PREFECT_LOGGING_ROOT_LEVEL": "DEBUG",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "DEBUG",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "azure,urllib3,requests,tasks,flows",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}


class Campaign:
    """Runs on a separate local Azure and Prefect server, with all files that they write."""

    def __init__(self, folder, azure, prefect):
        self.folder = folder
        self.azure = azure
        self.output = folder / "output"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("TOPN_", "PREFECT_"))},
            **DEBUG,
            **prefect.client_environment,
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

    def start(self):
        """Start the process that runs `topn`; only `.env` in its folder or the Prefect block has the keys."""
        with (self.output / "topn.out").open("wb") as output, (self.output / "topn.err").open("wb") as errors:
            return subprocess.Popen(
                [sys.executable, "-u", "-c", TOPN_CALLS],
                cwd=self.folder / "work",
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=errors,
                text=True,
            )

    def topn(self, process, *arguments, status):
        """Call `topn` in the process and wait until it returns."""
        output = self.output / "topn.out"
        seen = output.stat().st_size
        process.stdin.write(json.dumps(arguments) + "\n")
        process.stdin.flush()

        def found():
            return re.findall(r"^status (\d+)$", output.read_bytes()[seen:].decode(), re.MULTILINE)

        wait_until(found, f"topn {arguments}", while_running=process, seconds=CALL_SECONDS)
        assert found() == [str(status)], (self.output / "topn.err").read_text()[-4000:]
        self.azure.faults.clear()
        self.azure.storage_faults.clear()

    def save_block(self):
        """Save the block with the keys; the program reads them from standard input."""
        values = {name.removeprefix("TOPN_").lower(): value for name, value in self.azure.environment.items()}
        source = f"from tasks.azure.block import TopnAzure\nTopnAzure(**{values!r}).save('default', overwrite=True)\n"
        done = subprocess.run(
            [sys.executable, "-"],
            cwd=REPOSITORY,
            env=self.environment,
            input=source,
            capture_output=True,
            text=True,
            check=False,
        )
        (self.output / "block.out").write_text(done.stdout + done.stderr)
        assert done.returncode == 0, done.stderr


def run_all(campaign, process):
    """Run `topn` successfully and with many kinds of failures."""
    azure, write = campaign.azure, campaign.write
    dotenv = campaign.folder / "work" / ".env"
    dotenv.write_text("".join(f"{name}={value}\n" for name, value in azure.environment.items()))

    # One pack, and one Batch task with a single file.
    names = write("a.txt", "b.txt", "c.txt")
    bad = write("bad.txt", content="\0")
    keep = ("--keep-containers", "--keep-job", "--keep-pool")
    arguments = (*names[:2], *bad, names[2], "--files-per-task", "3", "--json", "--report", "report", *keep)
    campaign.topn(process, "run", *arguments, status=1)

    # Requests, Batch tasks, downloads and uploads fail; some error messages quote a URL.
    azure.faults.add("answer", operation="create_task_collection", status=400, code="InvalidRequestBody", message=QUOTE)
    azure.storage_faults.add("answer", operation="put_blob", path="*-in/*", status=403, message=QUOTE)
    azure.storage_faults.add("answer", operation="get_blob", path="*-in/*", status=404, code="BlobNotFound")
    azure.faults.add("upload_fails", task="*")
    files = write(*(f"r{number}.txt" for number in range(5)))
    campaign.topn(process, "run", *files, "--report", "report2", status=1)

    azure.faults.add("start_task_fails", exit_code=9)
    campaign.topn(process, "run", *write("s.txt"), status=1)
    azure.faults.add("answer", operation="create_pool", status=409, code="PoolQuotaReached", message=QUOTE)
    campaign.topn(process, "run", *write("e.txt"), "--json", status=1)
    campaign.topn(process, "sweep", "--dry-run", status=0)

    # The block has the keys, as for deployed runs.
    dotenv.unlink()
    campaign.save_block()
    # The run reports the failure and waits until it is over.
    azure.faults.add("allocation_fails", code="Unallocatable", message=QUOTE)
    campaign.topn(process, "run", *write("w1.txt", "w2.txt"), status=0)


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    """The completed runs, and the search for their secrets."""
    folder = tmp_path_factory.mktemp("secrets")
    search = Search(batch_key=BATCH_KEY, storage_key=STORAGE_KEY, quoted=QUOTED)
    read_body = local_batch.read_body
    bodies = []

    async def recording(receive):
        bodies.append(await read_body(receive))
        return bodies[-1]

    patch = pytest.MonkeyPatch()
    patch.setattr(local_batch, "read_body", recording)
    azure = LocalAzure(
        state_dir=folder / "azure", pace="instant", storage_faults=True, key=BATCH_KEY, storage_key=STORAGE_KEY
    )
    with patch.context(), azure, Processes() as processes, PrefectServer(folder / "prefect") as prefect:
        prefect.wait()
        done = Campaign(folder, azure, prefect)
        with done.start() as process:
            run_all(done, process)
            process.stdin.close()
        # Copy the files of the nodes, which are deleted with their pool.
        shutil.copytree(folder / "azure" / "nodes", folder / "nodes", symlinks=True)
        signatures = set(re.findall(r"\bsig=([\w%+/=-]+)", "\n".join(body.decode() for body in bodies if body)))
        for number, signature in enumerate(sorted(signatures)):
            search.add(f"signature {number}", signature)
    patch.undo()
    return SimpleNamespace(
        folder=folder,
        search=search,
        password=prefect.password,
        signatures=signatures,
        processes=processes,
        output=done.output,
    )


def test_files_and_databases_contain_no_secret(campaign):
    """The search covers output, logs, reports, results, Prefect's storage and database, blobs and node directories."""
    assert campaign.search.found_below(campaign.folder) == {}


def test_files_contain_no_prefect_password(campaign):
    assert Search(password=campaign.password).found_below(campaign.folder) == {}


def test_processes_expose_no_secret(campaign):
    # Azurite receives its key in this variable.
    texts = [text for text in campaign.processes.texts if b"AZURITE_ACCOUNTS=" not in text]
    assert [text for text in texts if campaign.search.found_in(text)] == []


def test_campaign_used_secrets_and_logged_verbosely(campaign):
    """Without secrets in the campaign, an empty search result would prove nothing."""
    assert len(campaign.signatures) > 10
    output = "".join(path.read_text() for path in campaign.output.iterdir())
    assert "| DEBUG" in output
    assert "urllib3" in output
    assert "Traceback" in output
    assert output.count("sig=[hidden]") > 5
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
