import os
from datetime import timedelta

import pytest
from azure.batch import models

from localbatch.testing import MACHINE, wait_until


def make_task(task_id="task", command_line="true", **options):
    return models.BatchTaskCreateOptions(id=task_id, command_line=command_line, **options)


def test_new_task_echoes_its_defaults(client, job_factory):
    job_id = job_factory(constraints=models.BatchJobConstraints(max_task_retry_count=4))
    client.create_task(job_id, make_task())
    task = client.get_task(job_id, "task")
    assert (task.state, task.required_slots, task.state_transition_time) == ("active", 1, task.creation_time)
    assert (task.constraints.max_task_retry_count, task.constraints.retention_time) == (4, timedelta(days=7))
    assert (task.execution_info.retry_count, task.execution_info.requeue_count) == (0, 0)
    assert (task.user_identity.auto_user.scope, task.node_info) == ("pool", None)


def test_completed_task_has_result_and_node(client, run):
    task = run("true")
    etag, info = task.etag, task.execution_info
    assert (info.exit_code, info.result, info.failure_info, task.previous_state) == (0, "success", None, "running")
    assert info.start_time <= info.end_time
    assert task.node_info.task_root_directory == f"workitems/{task.job_id}/job-1/task"
    assert task.node_info.affinity_id == f"TVM:{task.node_info.node_id}"
    assert client.get_task(task.job_id, "TASK").etag == etag
    node = client.get_node(task.node_info.pool_id, task.node_info.node_id)
    assert (node.total_tasks_run, node.total_tasks_succeeded, node.recent_tasks[0].task_id) == (1, 1, "task")


def test_failed_task_has_exit_code_and_failure(run):
    info = run("/bin/sh -c 'exit 3'").execution_info
    assert (info.exit_code, info.result, info.failure_info.code) == (3, "failure", "FailureExitCode")
    assert info.failure_info.category.lower() == "usererror"


def test_signals_are_reported_like_in_a_shell(run):
    assert run("/bin/sh -c 'kill -9 $$'").execution_info.exit_code == 137


def test_missing_program_has_its_code(run):
    info = run("no-such-program --at-all").execution_info
    assert (info.exit_code, info.result, info.failure_info.code) == (None, "failure", "CommandProgramNotFound")


@pytest.mark.parametrize("command_line", ["/bin/sh -c 'unbalanced", "/tmp"])
def test_invalid_command_has_its_code(run, command_line):
    assert run(command_line).execution_info.failure_info.code == "CommandLaunchFailed"


def test_command_line_runs_without_a_shell(run, read):
    assert read(run("echo $HOME * | cat > file")) == "$HOME * | cat > file\n"


def test_task_environment_has_only_task_variables(run, read, job_factory, pool_factory, monkeypatch):
    monkeypatch.setenv("TOPN_SECRET", "leaked")
    common = [models.EnvironmentSetting(name=name, value="job") for name in ("A", "B")]
    job_id = job_factory(pool_factory(), common_environment_settings=common)
    settings = [models.EnvironmentSetting(name=name, value="task") for name in ("B", "AZ_BATCH_POOL_ID")]
    task = run("env", job_id=job_id, environment_settings=settings)
    environment = dict(line.split("=", 1) for line in read(task).splitlines())
    assert {name for name in environment if not name.startswith("AZ_BATCH_")} == {"A", "B", "PATH", "HOME", "LANG"}
    assert (environment["A"], environment["B"], environment["AZ_BATCH_POOL_ID"]) == ("job", "task", "task")
    assert (environment["AZ_BATCH_JOB_ID"], environment["AZ_BATCH_TASK_ID"]) == (job_id, "task")
    assert environment["AZ_BATCH_TASK_WORKING_DIR"] == environment["HOME"]
    root = environment["AZ_BATCH_NODE_ROOT_DIR"]
    assert environment["AZ_BATCH_TASK_DIR"] == f"{root}/{task.node_info.task_root_directory}"
    assert environment["AZ_BATCH_NODE_IS_DEDICATED"] == "true"
    assert environment["AZ_BATCH_NODE_ID"] == task.node_info.node_id


def test_tasks_have_python_without_our_packages(run):
    assert run("python3 -c 'import json'").execution_info.exit_code == 0
    assert run("python3 -c 'import localbatch'").execution_info.exit_code == 1


def test_constraints_without_count_have_that_of_the_job(client, job_factory):
    """As recorded in `test_batch_job_list_cmd` of azure-cli, for the job manager task."""
    limit = models.BatchTaskConstraints(max_wall_clock_time=timedelta(hours=1))
    manager = models.BatchJobManagerTask(id="manager", command_line="true", constraints=limit)
    constraints = models.BatchJobConstraints(max_task_retry_count=5)
    job_id = job_factory(constraints=constraints, job_manager_task=manager)
    client.create_task(job_id, models.BatchTaskCreateOptions(id="task", command_line="true", constraints=limit))
    found = [client.get_job(job_id).job_manager_task, client.get_task(job_id, "task")]
    assert [each.constraints.max_task_retry_count for each in found] == [5, 5]


def test_retry_keeps_the_task_directory(run, read):
    constraints = models.BatchTaskConstraints(max_task_retry_count=3)
    task = run("/bin/sh -c 'echo x >> attempts; test $(wc -l < attempts) = 3'", constraints=constraints)
    assert (task.execution_info.exit_code, task.execution_info.retry_count) == (0, 2)
    assert task.execution_info.last_retry_time
    assert read(task, "wd/attempts") == "x\nx\nx\n"


def test_wall_clock_kills_task_and_children(run, read):
    constraints = models.BatchTaskConstraints(max_wall_clock_time=timedelta(seconds=0.5), max_task_retry_count=2)
    task = run("/bin/sh -c 'sleep 300 & echo $!; wait'", constraints=constraints)
    assert (task.execution_info.result, task.execution_info.failure_info.code) == ("failure", "TaskEnded")
    child = int(wait_until(lambda: read(task)))
    wait_until(lambda: is_gone(child))


def is_gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    with open(f"/proc/{pid}/stat") as file:  # A zombie waits for its parent, which is none of ours.
        return file.read().rpartition(")")[2].split()[0] == "Z"


def test_orphans_are_killed_with_their_task(run, read):
    task = run("/bin/sh -c 'sleep 300 & echo $!'")
    wait_until(lambda: is_gone(int(read(task))))


def test_user_ends_task_once(client, job_factory, pool_factory, refuses):
    job_id = job_factory(pool_factory())
    client.create_task(job_id, make_task("t", "sleep 300"))
    wait_until(lambda: client.get_task(job_id, "t").state == "running")
    client.terminate_task(job_id, "t")
    task = client.get_task(job_id, "t")
    assert (task.state, task.execution_info.failure_info.code) == ("completed", "TaskEnded")
    assert task.execution_info.failure_info.message == "Task was ended by user request"
    refuses(409, "TaskCompleted", client.terminate_task, job_id, "t")


def test_failed_task_can_be_reactivated(client, job_factory, refuses):
    job_id = job_factory()
    client.create_task(job_id, make_task("t"))
    refuses(409, "TaskNotCompleted", client.reactivate_task, job_id, "t")
    client.terminate_task(job_id, "t")
    client.reactivate_task(job_id, "t")
    task = client.get_task(job_id, "t")
    assert (task.state, task.execution_info.failure_info, task.execution_info.end_time) == ("active", None, None)
    assert client.get_job_task_counts(job_id).task_counts.active == 1


def test_ending_a_task_does_not_end_its_job(client, job_factory):
    """As in `test_batch_tasks` of azure-sdk-for-python."""
    job_id = job_factory(task_failure_mode="performexitoptionsjobaction")
    client.create_task(job_id, make_task("t"))
    client.terminate_task(job_id, "t")
    client.reactivate_task(job_id, "t")
    assert (client.get_task(job_id, "t").state, client.get_job(job_id).state) == ("active", "active")


def test_containers_and_instances_are_accepted(client, run, read):
    """Recorded: the service completes the working directory. Here the command runs on the node, once."""
    task = run(
        "/bin/sh -c 'pwd'",
        container_settings=models.BatchTaskContainerSettings(
            image_name="python:3.12", registry=models.ContainerRegistryReference(username="u", password="secret")
        ),
        multi_instance_settings=models.MultiInstanceSettings(number_of_instances=3, coordination_command_line="true"),
    )
    assert task.as_dict()["containerSettings"] == {
        "imageName": "python:3.12",
        "registry": {"username": "u"},
        "workingDirectory": "taskWorkingDirectory",
    }
    assert task.multi_instance_settings.number_of_instances == 3
    assert read(task).endswith("/wd\n")
    assert list(client.list_subtasks(task.job_id, "task")) == []


def test_container_pool_needs_container_settings(pool_factory, job_factory, run):
    """As in https://github.com/microsoft/ga4gh-tes/issues/525."""
    machine = MACHINE["virtual_machine_configuration"] | {"containerConfiguration": {"type": "dockerCompatible"}}
    job_id = job_factory(pool_factory(virtual_machine_configuration=machine))
    settings = models.BatchTaskContainerSettings(image_name="python:3.12")
    assert run("true", job_id=job_id, task_id="in", container_settings=settings).execution_info.exit_code == 0
    outside = run("true", job_id=job_id, task_id="out").execution_info
    assert (outside.exit_code, outside.failure_info.code) == (None, "ContainerTaskSettingsNotFound")


def test_succeeded_task_cannot_be_reactivated(client, run, refuses):
    task = run("true")
    refuses(409, "TaskSucceeded", client.reactivate_task, task.job_id, "task")


def test_deleted_task_frees_process_files_and_id(client, job_factory, pool_factory, run, refuses):
    job_id = job_factory(pool_factory())
    client.create_task(job_id, make_task("t", "/bin/sh -c 'echo old > file; sleep 300'"))
    wait_until(lambda: client.get_task(job_id, "t").state == "running")
    client.delete_task(job_id, "t")
    refuses(404, "TaskNotFound", client.get_task, job_id, "t")
    refuses(404, "TaskNotFound", client.delete_task, job_id, "t")
    assert run("/bin/sh -c '! test -e file'", job_id=job_id, task_id="t").execution_info.exit_code == 0


def test_slots_run_tasks_side_by_side(client, job_factory, pool_factory):
    job_id = job_factory(pool_factory(1, task_slots_per_node=3))
    # Each waits until all three are there: one after the other they would never end.
    command = "/bin/sh -c 'touch $AZ_BATCH_NODE_SHARED_DIR/$AZ_BATCH_TASK_ID; while test $(ls $AZ_BATCH_NODE_SHARED_DIR | wc -l) -lt 3; do sleep 0.01; done'"
    client.create_tasks(job_id, [make_task(f"t{number}", command) for number in range(3)])
    wait_until(lambda: client.get_job_task_counts(job_id).task_counts.succeeded == 3)
    slots = client.get_job_task_counts(job_id).task_slot_counts
    assert (slots.completed, slots.running) == (3, 0)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"task_id": "no spaces"}, "InvalidPropertyValue"),
        ({"task_id": "x" * 65}, "InvalidPropertyValue"),
        ({"command_line": ""}, "InvalidPropertyValue"),
        ({"required_slots": 0}, "InvalidPropertyValue"),
        ({"depends_on": models.BatchTaskDependencies(task_ids=["a"])}, "TaskDependenciesNotSpecifiedOnJob"),
        ({"resource_files": [models.ResourceFile(http_url="http://x/y")]}, "MissingRequiredProperty"),
        ({"resource_files": [models.ResourceFile(file_path="x")]}, "InvalidPropertyValue"),
    ],
)
def test_invalid_task_is_refused(client, job_factory, refuses, options, code):
    refuses(400, code, client.create_task, job_factory(), make_task(**options))


def test_existing_task_is_not_created_again(client, job_factory, refuses):
    job_id = job_factory()
    client.create_task(job_id, make_task("t"))
    refuses(409, "TaskExists", client.create_task, job_id, make_task("T"))
    refuses(404, "JobNotFound", client.create_task, f"{job_id}x", make_task())


def test_many_tasks_are_added_in_collections(client, job_factory, local_azure):
    job_id = job_factory()
    results = client.create_tasks(job_id, [make_task(f"t{number:03}") for number in range(250)]).result_values
    assert {result.status for result in results} == {"Success"}
    assert len(results) == client.get_job_task_counts(job_id).task_counts.active == 250
    added = [r for r in local_azure.batch.requests if r.operation == "create_task_collection" and job_id in r.path]
    assert len(added) == 3


def test_collection_reports_each_task(client, job_factory):
    job_id = job_factory()
    client.create_task(job_id, make_task("there"))
    group = models.BatchTaskGroup(task_values=[make_task("new"), make_task("there"), make_task("not good")])
    results = {result.task_id: result for result in client.create_task_collection(job_id, group).result_values}
    assert {task_id: result.status for task_id, result in results.items()} == {
        "new": "Success",
        "there": "ClientError",
        "not good": "ClientError",
    }
    assert (results["there"].error.code, results["not good"].error.code) == ("TaskExists", "InvalidPropertyValue")
    assert results["new"].location.endswith(f"/jobs/{job_id}/tasks/new")


def test_client_halves_large_collections(client, job_factory, refuses):
    job_id = job_factory()
    padding = [models.EnvironmentSetting(name="PADDING", value="x" * 30_000)]
    tasks = [make_task(f"t{number}", environment_settings=padding) for number in range(60)]
    assert len(client.create_tasks(job_id, tasks).result_values) == 60
    huge = [models.EnvironmentSetting(name="PADDING", value="x" * 1_100_000)]
    refuses(413, "RequestBodyTooLarge", client.create_task, job_id, make_task("huge", environment_settings=huge))


def test_tasks_are_listed_with_filter_and_selection(client, job_factory):
    job_id = job_factory()
    client.create_tasks(job_id, [make_task(f"t{number:02}") for number in range(25)])
    client.terminate_task(job_id, "t07")
    options = {
        "filter": "state eq 'active' and startswith(id,'t')",
        "select": ["id", "executionInfo"],
        "max_results": 10,
    }
    pages = [list(page) for page in client.list_tasks(job_id, **options).by_page()]
    assert [len(page) for page in pages] == [10, 10, 4]
    assert [task.id for page in pages for task in page] == [f"t{n:02}" for n in range(25) if n != 7]
    assert set(pages[0][0].as_dict()) == {"id", "executionInfo"}
    (failed,) = client.list_tasks(job_id, filter="executionInfo/result eq 'failure'")
    assert failed.id == "t07"
