"""Fixtures for the `topn` command in this process, and completed runs that many tests share."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import pytest
from run_files import HOSTILE_NAMES, MIXED_FILES
from tests_support import REPOSITORY, resources_of_runs, send_to_prefect, watch_requests
from topn_support import Topn, environment_of

from localbatch import LocalAzure


@pytest.fixture(scope="session")
def prefect_storage(tmp_path_factory):
    """The folder where Prefect stores the results of steps."""
    return tmp_path_factory.mktemp("storage")


@pytest.fixture
def topn(local_azure, prefect_api, prefect_storage, tmp_path, no_pictures):
    """`topn` on the servers of the tests, with a new state folder, without logs and pictures."""
    environment = environment_of(local_azure, prefect_api, tmp_path / "state")
    return Topn(**environment, PREFECT_LOCAL_STORAGE_PATH=str(prefect_storage))


@pytest.fixture
def storage_requests(monkeypatch):
    """The requests that the flow sends to Storage: method, path, query, and the sizes of request and response in bytes."""
    from tasks.azure.transport import CheckedTransport  # noqa: PLC0415 - after the environment is clean

    found = []
    send = CheckedTransport.send

    def record(transport, request, **options):
        response = send(transport, request, **options)
        if transport._service == "Storage":
            parts = urlsplit(request.url)
            has_body = request.method != "HEAD"
            sizes = [int(message.headers.get("Content-Length", 0)) for message in (request, response)]
            found.append(
                SimpleNamespace(
                    method=request.method,
                    path=unquote(parts.path),
                    query=parts.query,
                    sent_bytes=sizes[0],
                    received_bytes=sizes[1] if has_body else 0,
                )
            )
        return response

    monkeypatch.setattr(CheckedTransport, "send", record)
    return found


@pytest.fixture
def no_pictures(monkeypatch):
    """Omit the pictures from run summaries, because drawing them takes a third of a run's time."""
    from tasks.report import artifacts  # noqa: PLC0415 - after the environment is clean

    monkeypatch.setattr(artifacts, "_pictures", lambda report: None)


@pytest.fixture(scope="session")
def failing_azure(tmp_path_factory):
    """A local Azure whose services can be made to fail. Its tests have the mark `xdist_group("failing_azure")`."""
    folder = tmp_path_factory.mktemp("failing")
    with LocalAzure(state_dir=folder, pace="instant", storage_faults=True) as azure:
        yield azure


@pytest.fixture
def read_run(prefect_api):
    """Return a function that reads the flow run with the given name, and its artifacts by key."""

    def read(run_name):
        flow_run_id = run_name.removeprefix("topn-").rpartition("-")[0]
        artifacts = send_to_prefect(prefect_api, "/artifacts/filter", {"flow_runs": {"id": {"any_": [flow_run_id]}}})
        flow_run = send_to_prefect(prefect_api, f"/flow_runs/{flow_run_id}")
        assert len({artifact["key"] for artifact in artifacts}) == len(artifacts)
        return flow_run, {artifact["key"]: artifact for artifact in artifacts}

    return read


@pytest.fixture
def read_log(prefect_api):
    """Return a function that reads the lines in the log of a flow run, in their order."""

    def read(flow_run_id):
        query = {"logs": {"flow_run_id": {"any_": [str(flow_run_id)]}}, "sort": "TIMESTAMP_ASC"}
        return [log["message"] for log in send_to_prefect(prefect_api, "/logs/filter", query)]

    return read


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory):
    """The folder of the shared runs, with the sample texts in data/."""
    folder = tmp_path_factory.mktemp("shared")
    shutil.copytree(REPOSITORY / "data", folder / "data")
    return folder


@pytest.fixture(scope="session")
def shared_topn(shared_folder, local_azure, prefect_api, prefect_storage):
    """`topn` with one state folder for all shared runs, which send their logs to the Prefect server."""
    environment = environment_of(local_azure, prefect_api, shared_folder / "state")
    environment |= {"PREFECT_LOCAL_STORAGE_PATH": str(prefect_storage), "PREFECT_LOGGING_TO_API_ENABLED": "true"}
    return Topn(**environment)


class SharedRun:
    """A completed run: its folder, the JSON document that it printed, and its requests to Batch.

    Tests only read a shared run, and have the mark `xdist_group("shared_runs")`.
    """

    def __init__(self, topn, azure, folder, *arguments, status):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            with topn.environ():
                before = resources_of_runs()
            requests = watch_requests(azure.batch)
            self.done = topn("run", "--json", *arguments)
            assert self.done.returncode == status, self.done.stderr
            self.requests = requests()
            with topn.environ():
                self.leftovers = resources_of_runs() - before
        self.topn = topn
        self.folder = folder
        self.found = json.loads(self.done.stdout)


@pytest.fixture(scope="session")
def completed_run(shared_topn, shared_folder, local_azure):
    """A run that counted the top five words of each of the five sample texts."""
    arguments = ("data/*.txt", "-n", "5", "--report", "page")
    return SharedRun(shared_topn, local_azure, shared_folder, *arguments, status=0)


@pytest.fixture(scope="session")
def repeated_run(completed_run, tmp_path_factory, local_azure):
    """A second run on the same texts in another folder, with one text renamed; it had nothing to count."""
    folder = tmp_path_factory.mktemp("repeated")
    shutil.copytree(completed_run.folder / "data", folder / "data")
    (folder / "data/sonnets.txt").rename(folder / "data/renamed.txt")
    return SharedRun(completed_run.topn, local_azure, folder, "data/*.txt", "-n", "5", status=0)


@pytest.fixture(scope="session")
def failed_run(shared_topn, tmp_path_factory, local_azure):
    """A run in which three of six files failed, each for its own reason."""
    folder = tmp_path_factory.mktemp("failed")
    for name, content in MIXED_FILES.items():
        (folder / name).write_bytes(content)
    return SharedRun(shared_topn, local_azure, folder, *MIXED_FILES, status=1)


@pytest.fixture(scope="session")
def packed_run(shared_topn, tmp_path_factory, local_azure):
    """A run with up to seven files per Batch task: files with hostile names, and one that failed."""
    folder = tmp_path_factory.mktemp("packed") / "in"
    folder.mkdir()
    for number, name in enumerate(HOSTILE_NAMES):
        (folder / name).write_text(f"w{number} " * (number + 1))
    (folder / "bad.txt").write_bytes(b"\xff")
    arguments = ("--output", "../out", "--files-per-task", "7", "--", *HOSTILE_NAMES, "bad.txt")
    return SharedRun(shared_topn, local_azure, folder, *arguments, status=1)


# Compiled objects by compiler, source and machine.
_compiled_objects = {}


@pytest.fixture(autouse=True)
def compiled_once(monkeypatch):
    """Compile the word counter once in this process instead of once per state folder."""
    from tasks.workload import task_script_package  # noqa: PLC0415 - after the environment is clean

    compile_anew = task_script_package._compile

    def compile_once(source, machine):
        key = (task_script_package.COMPILER, source, machine)
        if key not in _compiled_objects:
            _compiled_objects[key] = compile_anew(source, machine)
        return _compiled_objects[key]

    monkeypatch.setattr(task_script_package, "_compile", compile_once)
