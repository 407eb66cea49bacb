"""Runs that were killed, or whose Prefect server was: what they finished is not done again, and nothing stays."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from tests_support import independent_count, processes_of, resources_of_runs, wait_until, watch_requests

FILES = 4


@pytest.fixture
def texts():
    texts = {f"{number}.txt": f"w{number} {os.getcwd()} " * (number + 1) for number in range(FILES)}
    for name, text in texts.items():
        Path(name).write_text(text)
    return texts


@pytest.fixture
def waiting(local_azure):
    """Let runs wait for their Batch tasks until the returned function is called."""
    local_azure.faults.add("answer", operation="list_tasks", status=503, code="ServerBusy", times=10_000)
    yield local_azure.faults.clear
    local_azure.faults.clear()


def job_of_new_run(before):
    """Return the job of the only run that started since."""
    names = [name for name in resources_of_runs() - before if name.startswith("job ")]
    return names[0].removeprefix("job ") if names else None


@pytest.mark.parametrize(("command", "options"), [("topn_without_prefect", ()), ("topn", ("--files-per-task", "3"))])
def test_killed_run_is_collected_and_swept(request, texts, assert_nothing_left, local_azure, waiting, command, options):
    """With a Prefect server of its own or a shared one, and with one file or several per Batch task."""
    from tasks.azure.accounts import batch_account  # noqa: PLC0415 - after the environment is set

    topn = request.getfixturevalue(command)
    before = resources_of_runs()
    batch_tasks = FILES if not options else 2
    process = topn.start("run", *texts, *options)

    def completed():
        job_id = job_of_new_run(before)
        return job_id and batch_account().get_task_counts(job_id).completed >= batch_tasks

    wait_until(completed, "the Batch tasks are completed", while_running=process)
    process.kill()
    process.communicate()
    waiting()
    requests = watch_requests(local_azure.batch)

    found = topn.json(*texts, *options)

    for file in found["files"]:
        expected = independent_count(texts[Path(file["file"]).name])
        assert (file["words"], file["distinct"], file["top"]) == expected
    assert {file["status"] for file in found["files"]} == {"unchanged"}
    added = [record for record in requests() if record.path.endswith("addtaskcollection")]
    # The merge, unless it was completed, too.
    assert len(added) <= 1
    assert found["corpus"]["words"] == sum(file["words"] for file in found["files"])
    assert_nothing_left()


def test_run_survives_death_of_its_prefect_server(topn_without_prefect, texts, assert_nothing_left, waiting):
    topn = topn_without_prefect
    state = topn.environment["TOPN_STATE"]
    before = resources_of_runs()
    process = topn.start("run", *texts)
    wait_until(lambda: job_of_new_run(before), "the job was created", while_running=process)
    [server] = [int(pid) for pid, command in processes_of(state) if b"flows.servers.prefect_server" in command]
    os.kill(server, signal.SIGKILL)
    waiting()

    output, errors = process.communicate(timeout=120)

    assert process.returncode == 1, errors
    assert output == ""
    assert "The run failed: The Prefect server ended by signal 9" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    assert_nothing_left()
    assert topn("run", *texts).returncode == 0
