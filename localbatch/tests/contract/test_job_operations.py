"""Job managers, release tasks, automatic pools, dependencies, exit conditions, replacements."""

import re
from datetime import timedelta

import pytest
from azure.batch import BatchClient, models
from azure.core import MatchConditions
from azure.core.credentials import AzureNamedKeyCredential
from azure.core.exceptions import HttpResponseError, ResourceModifiedError

from localbatch import LocalBatch
from localbatch.testing import MACHINE, wait_until

TERMINATION = {"terminateReason": "enough"}


def make_task(task_id="task", command_line="true", **options):
    return models.BatchTaskCreateOptions(id=task_id, command_line=command_line, **options)


def find_completed_job(client, job_id):
    return next(iter(client.list_jobs(filter=f"id eq '{job_id}' and state eq 'completed'")), None)


def states(client, job_id):
    return {task.id: task.state for task in client.list_tasks(job_id)}


def test_replaced_job_has_defaults(client, job_factory, refuses):
    job_id = job_factory(
        priority=5,
        metadata=[models.BatchMetadataItem(name="a", value="1")],
        constraints=models.BatchJobConstraints(max_task_retry_count=3),
        common_environment_settings=[models.EnvironmentSetting(name="A", value="1")],
    )
    job = client.get_job(job_id)
    job.priority, job.metadata, job.constraints, job.max_parallel_tasks = 7, None, None, None
    client.replace_job(job_id, job)
    job = client.get_job(job_id)
    assert (job.priority, job.metadata, job.constraints.max_task_retry_count, job.max_parallel_tasks) == (
        7,
        None,
        0,
        -1,
    )
    assert job.common_environment_settings[0].name == "A"
    job.pool_info = None
    refuses(400, "MissingRequiredProperty", client.replace_job, job_id, job)


def test_job_manager_adds_tasks_and_ends_job(client, job_factory, pool_factory, read):
    manager = models.BatchJobManagerTask(id="jm", command_line="/bin/sh -c 'echo $AZ_BATCH_TASK_ID'")
    job_id = job_factory(pool_factory(1), job_manager_task=manager)
    task = client.get_task(job_id, "jm")
    assert task.required_slots == 1
    job = wait_until(lambda: find_completed_job(client, job_id))
    assert (job.execution_info.termination_reason, job.job_manager_task.kill_job_on_completion) == ("JMComplete", True)
    task = client.get_task(job_id, "jm")
    task.job_id = job_id
    assert read(task) == "jm\n"


def test_release_task_runs_on_prepared_nodes(client, job_factory, pool_factory, refuses):
    pool_id = pool_factory(1)
    shared = "$AZ_BATCH_NODE_SHARED_DIR/prepared"
    job_id = job_factory(
        pool_id,
        job_preparation_task=models.BatchJobPreparationTask(command_line=f"/bin/sh -c 'echo x > {shared}'"),
        job_release_task=models.BatchJobReleaseTask(command_line=f"/bin/sh -c 'rm {shared}'"),
    )
    client.create_task(job_id, make_task())
    wait_until(lambda: client.get_task(job_id, "task").state == "completed")
    refuses(409, "TaskIdSameAsJobReleaseTask", client.create_task, job_id, make_task("JobRelease"))
    client.begin_terminate_job(job_id, options=TERMINATION, polling_interval=0).result()
    (status,) = client.list_job_preparation_and_release_task_status(
        job_id, filter="jobReleaseTaskExecutionInfo/exitCode eq 0", select=["nodeId", "jobReleaseTaskExecutionInfo"]
    )
    info = status.job_release_task_execution_info
    assert (info.state, info.result, status.job_preparation_task_execution_info) == ("completed", "success", None)
    assert info.task_root_directory == f"workitems/{job_id}/job-1/jobrelease"
    names = [file.name for file in client.list_node_files(pool_id, status.node_id, recursive=True)]
    assert "shared/prepared" not in names
    job = client.get_job(job_id)
    assert (job.job_release_task.id, job.job_release_task.max_wall_clock_time) == ("jobrelease", timedelta(minutes=15))


def auto_pool(**options):
    pool = models.BatchPoolSpecification(**MACHINE | {"vm_size": "Standard_A1", "target_dedicated_nodes": 1} | options)
    return models.BatchPoolInfo(
        auto_pool_specification=models.BatchAutoPoolSpecification(
            auto_pool_id_prefix="auto", pool_lifetime_option="job", pool=pool
        )
    )


def test_automatic_pool_ends_with_its_job(client, name, refuses):
    job_id = f"{name}-auto"
    client.create_job(models.BatchJobCreateOptions(id=job_id, pool_info=auto_pool()))
    job = client.get_job(job_id)
    pool_id = job.execution_info.pool_id
    # As recorded by the Azure CLI: prefix, underscore, and a GUID in upper case.
    assert re.fullmatch("auto_[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}", pool_id)
    auto = job.pool_info.auto_pool_specification
    assert (auto.keep_alive, auto.pool.vm_size, auto.pool.target_dedicated_nodes) == (False, "standard_a1", 1)
    client.create_task(job_id, make_task())
    wait_until(lambda: client.get_task(job_id, "task").state == "completed")
    client.begin_terminate_job(job_id, options=TERMINATION, polling_interval=0).result()
    wait_until(lambda: not list(client.list_pools(filter=f"id eq '{pool_id}'")))
    client.begin_delete_job(job_id, polling_interval=0).result()


def test_job_without_automatic_pool_completes():
    with (
        LocalBatch(pace="instant", pool_quota=0) as batch,
        BatchClient(batch.endpoint, AzureNamedKeyCredential(batch.account, batch.key)) as client,
    ):
        client.create_job(models.BatchJobCreateOptions(id="quota", pool_info=auto_pool()))
        wrong = auto_pool(target_dedicated_nodes=None, enable_auto_scale=True, auto_scale_formula="$Nonsense = ;")
        client.create_job(models.BatchJobCreateOptions(id="formula", pool_info=wrong))
        errors = {job.id: (job.state, job.execution_info.scheduling_error.code) for job in client.list_jobs()}
    assert errors == {
        "quota": ("completed", "AutoPoolCreationFailedWithQuotaReached"),
        "formula": ("completed", "InvalidAutoScaleFormulaInAutoPool"),
    }


def test_schedule_lifetime_is_refused_for_jobs(client, name, refuses):
    info = auto_pool()
    info.auto_pool_specification.pool_lifetime_option = "jobschedule"
    job = models.BatchJobCreateOptions(id=name, pool_info=info)
    refuses(400, "InvalidPropertyValue", client.create_job, job)


def test_failed_task_applies_its_job_action(client, job_factory, pool_factory, refuses):
    job_id = job_factory(pool_factory(1), task_failure_mode="performexitoptionsjobaction")
    client.create_task(job_id, make_task("bad", "/bin/sh -c 'exit 4'"))
    job = wait_until(lambda: find_completed_job(client, job_id))
    assert job.execution_info.termination_reason == "TaskFailed"
    conditions = models.ExitConditions(default=models.ExitOptions(job_action="disable"))
    quiet = job_factory()
    refuses(400, "InvalidPropertyValue", client.create_task, quiet, make_task(exit_conditions=conditions))


def test_tasks_depend_on_each_other(client, job_factory, pool_factory, refuses):
    job_id = job_factory(pool_factory(1), uses_task_dependencies=True)
    satisfied = models.ExitConditions(
        exit_codes=[models.ExitCodeMapping(code=3, exit_options=models.ExitOptions(dependency_action="satisfy"))]
    )
    client.create_tasks(
        job_id,
        [
            make_task("1"),
            make_task("02", "/bin/sh -c 'exit 3'", exit_conditions=satisfied),
            make_task("bad", "/bin/sh -c 'exit 3'"),
            make_task("blocked", depends_on=models.BatchTaskDependencies(task_ids=["bad"])),
            make_task(
                "last",
                depends_on=models.BatchTaskDependencies(task_id_ranges=[models.BatchTaskIdRange(start=1, end=2)]),
            ),
        ],
    )
    wait_until(lambda: list(states(client, job_id).values()).count("completed") == 4)
    assert states(client, job_id)["blocked"] == "active"
    assert client.get_task(job_id, "last").depends_on.task_id_ranges[0].end == 2
    plain = job_factory()
    depends = models.BatchTaskDependencies(task_ids=["1"])
    refuses(400, "TaskDependenciesNotSpecifiedOnJob", client.create_task, plain, make_task(depends_on=depends))


def test_constraints_change_until_completion(client, job_factory, refuses):
    job_id = job_factory()
    client.create_task(job_id, make_task())
    task = client.get_task(job_id, "task")
    etag = task.etag
    task.constraints = models.BatchTaskConstraints(max_task_retry_count=2, retention_time=timedelta(hours=1))
    client.replace_task(job_id, "task", task, etag=etag, match_condition=MatchConditions.IfNotModified)
    task = client.get_task(job_id, "task")
    assert (task.constraints.max_task_retry_count, task.constraints.retention_time) == (2, timedelta(hours=1))
    assert task.etag != etag
    with pytest.raises(ResourceModifiedError):
        client.replace_task(job_id, "task", task, etag=etag, match_condition=MatchConditions.IfNotModified)
    with pytest.raises(ResourceModifiedError):
        client.get_task(job_id, "task", etag=task.etag, match_condition=MatchConditions.IfModified)
    client.terminate_task(job_id, "task")
    refuses(409, "TaskCompleted", client.replace_task, job_id, "task", task)


def test_files_expire_after_retention_time(client, run, refuses):
    task = run("true", constraints=models.BatchTaskConstraints(retention_time=timedelta(seconds=0.2)))
    wait_until(lambda: find_refusal(client, task) == "TaskFilesCleanedup")
    assert client.get_task(task.job_id, "task").state == "completed"


def find_refusal(client, task):
    try:
        list(client.list_task_files(task.job_id, "task"))
    except HttpResponseError as error:
        return error.error.code
    return None


def test_ordinary_task_has_no_subtasks(client, job_factory):
    job_id = job_factory()
    client.create_task(job_id, make_task())
    assert list(client.list_subtasks(job_id, "task")) == []


def test_task_runs_on_its_affinity_node(client, job_factory, pool_factory):
    pool_id = pool_factory(3)
    node = list(client.list_nodes(pool_id))[2]
    job_id = job_factory(pool_id)
    client.create_task(job_id, make_task(affinity_info=models.BatchAffinityInfo(affinity_id=node.affinity_id)))
    task = wait_until(lambda: next(iter(client.list_tasks(job_id, filter="state eq 'completed'")), None))
    assert task.node_info.node_id == node.id


def test_slots_and_parallel_tasks_are_limits(client, job_factory, pool_factory):
    pool_id = pool_factory(1, task_slots_per_node=4)
    job_id = job_factory(pool_id, max_parallel_tasks=1)
    client.create_tasks(job_id, [make_task(f"t{number}", "sleep 300", required_slots=2) for number in range(3)])
    wait_until(lambda: client.get_job_task_counts(job_id).task_counts.running == 1)
    client.update_job(job_id, models.BatchJobUpdateOptions(max_parallel_tasks=-1))
    wait_until(lambda: client.get_job_task_counts(job_id).task_slot_counts.running == 4)
    assert client.get_job_task_counts(job_id).task_counts.active == 1


@pytest.mark.parametrize(("option", "state"), [("requeue", "active"), ("terminate", "completed"), ("wait", "running")])
def test_job_is_disabled_in_three_ways(client, job_factory, pool_factory, option, state):
    job_id = job_factory(pool_factory(1))
    client.create_task(job_id, make_task("t", "sleep 300"))
    wait_until(lambda: client.get_task(job_id, "t").state == "running")
    disable = models.BatchJobDisableOptions(disable_tasks=option)
    poller = client.begin_disable_job(job_id, disable, polling_interval=0)
    if option == "wait":
        assert (client.get_job(job_id).state, client.get_task(job_id, "t").state) == ("disabling", state)
        client.terminate_task(job_id, "t")
    poller.result()
    assert client.get_job(job_id).state == "disabled"
    assert option == "wait" or client.get_task(job_id, "t").state == state


def test_old_etag_does_not_delete_a_job(client, job_factory):
    job_id = job_factory()
    etag = client.get_job(job_id).etag
    client.update_job(job_id, models.BatchJobUpdateOptions(priority=3))
    with pytest.raises(ResourceModifiedError):
        client.begin_delete_job(job_id, etag=etag, match_condition=MatchConditions.IfNotModified)
    assert client.get_job(job_id).state == "active"
