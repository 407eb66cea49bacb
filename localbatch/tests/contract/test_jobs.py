from datetime import timedelta

import pytest
from azure.batch import BatchClient, models
from azure.core.credentials import AzureNamedKeyCredential
from azure.core.exceptions import HttpResponseError

from localbatch import LocalBatch
from localbatch.testing import wait_until

TERMINATION = {"terminateReason": "enough"}
SLEEP = "sleep 60"


def make_task(task_id="task", command_line="true", **options):
    return models.BatchTaskCreateOptions(id=task_id, command_line=command_line, **options)


def test_new_job_echoes_its_defaults(client, job_factory):
    job_id = job_factory(metadata=[models.BatchMetadataItem(name="expires", value="soon")])
    job = client.get_job(job_id)
    assert (job.id, job.state, job.priority, job.max_parallel_tasks) == (job_id, "active", 0, -1)
    assert (job.all_tasks_complete_mode, job.task_failure_mode) == ("noaction", "noaction")
    assert (job.constraints.max_task_retry_count, job.uses_task_dependencies) == (0, False)
    assert (job.execution_info.pool_id, job.execution_info.start_time) == ("nowhere", job.creation_time)
    assert job.metadata == [{"name": "expires", "value": "soon"}]


def test_existing_job_is_not_created_again(client, job_factory, refuses):
    job_id = job_factory()
    info = models.BatchPoolInfo(pool_id="p")
    refuses(409, "JobExists", client.create_job, models.BatchJobCreateOptions(id=job_id.upper(), pool_info=info))
    refuses(404, "JobNotFound", client.get_job, f"{job_id}x")


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"id": "a b"}, "InvalidPropertyValue"),
        ({"pool_info": None}, "MissingRequiredProperty"),
        ({"priority": 1001}, "InvalidPropertyValue"),
        ({"job_release_task": models.BatchJobReleaseTask(command_line="true")}, "InvalidPropertyValue"),
        ({"job_manager_task": models.BatchJobManagerTask(id="a b", command_line="true")}, "InvalidPropertyValue"),
    ],
)
def test_invalid_job_is_refused(client, name, refuses, options, code):
    body = {"id": name, "pool_info": models.BatchPoolInfo(pool_id="p")} | options
    refuses(400, code, client.create_job, models.BatchJobCreateOptions(**body))


def test_tasks_wait_for_a_later_pool(client, job_factory, pool_factory, name):
    job_id = job_factory(pool_id=f"{name}-0")
    client.create_task(job_id, make_task())
    assert client.get_task(job_id, "task").state == "active"
    assert pool_factory(1, ready=False) == f"{name}-0"
    wait_until(lambda: client.get_task(job_id, "task").state == "completed")


def test_terminatejob_ends_job_with_its_tasks(client, job_factory, pool_factory, refuses):
    job_id = job_factory(pool_factory())
    client.create_task(job_id, make_task())
    client.update_job(job_id, models.BatchJobUpdateOptions(all_tasks_complete_mode="terminatejob"))
    job = wait_until(lambda: next(client.list_jobs(filter=f"id eq '{job_id}' and state eq 'completed'"), None))
    assert job.execution_info.termination_reason == "AllTasksComplete"
    assert job.execution_info.end_time >= job.execution_info.start_time
    refuses(409, "JobCompleted", client.create_task, job_id, make_task("late"))
    refuses(409, "JobCompleted", client.begin_terminate_job, job_id, options=TERMINATION)


def test_terminatejob_ends_empty_job_at_once(client, job_factory):
    job_id = job_factory(all_tasks_complete_mode="terminatejob")
    wait_until(lambda: client.get_job(job_id).state == "completed")


def test_terminatejob_cannot_be_undone(client, job_factory, refuses):
    job_id = job_factory()
    client.create_task(job_id, make_task())
    client.update_job(job_id, models.BatchJobUpdateOptions(all_tasks_complete_mode="terminatejob"))
    patch = models.BatchJobUpdateOptions(all_tasks_complete_mode="noaction")
    refuses(400, "InvalidPropertyValue", client.update_job, job_id, patch)


def test_terminating_job_keeps_active_tasks(client, job_factory, pool_factory):
    job_id = job_factory(pool_factory(1))
    client.create_tasks(job_id, [make_task("a", SLEEP), make_task("b", SLEEP)])
    wait_until(lambda: client.get_job_task_counts(job_id).task_counts.running == 1)
    poller = client.begin_terminate_job(job_id, options=TERMINATION, polling_interval=0)
    poller.result()
    assert poller.status() == "Succeeded"
    job = client.get_job(job_id)
    assert (job.state, job.execution_info.termination_reason) == ("completed", "enough")
    assert job.previous_state == "terminating"
    counts = client.get_job_task_counts(job_id).task_counts
    assert (counts.active, counts.running, counts.failed) == (1, 0, 1)


def test_job_ends_at_its_wall_clock(client, job_factory, pool_factory):
    job_id = job_factory(pool_factory(1))
    client.create_task(job_id, make_task("a", SLEEP))
    wait_until(lambda: client.get_task(job_id, "a").state == "running")
    constraints = models.BatchJobConstraints(max_wall_clock_time=timedelta(seconds=0.5), max_task_retry_count=3)
    client.update_job(job_id, models.BatchJobUpdateOptions(constraints=constraints))
    job = wait_until(lambda: next(client.list_jobs(filter=f"id eq '{job_id}' and state eq 'completed'"), None))
    assert job.execution_info.termination_reason == "MaxWallClockTimeExpiry"
    task = client.get_task(job_id, "a")
    assert (task.state, task.execution_info.result, task.execution_info.failure_info.code) == (
        "completed",
        "failure",
        "TaskEnded",
    )


def test_patch_replaces_whole_constraints(client, job_factory):
    job_id = job_factory(constraints=models.BatchJobConstraints(max_task_retry_count=5))
    constraints = models.BatchJobConstraints(max_wall_clock_time=timedelta(hours=1))
    client.update_job(job_id, models.BatchJobUpdateOptions(constraints=constraints, priority=7))
    job = client.get_job(job_id)
    assert (job.constraints.max_task_retry_count, job.constraints.max_wall_clock_time) == (0, timedelta(hours=1))
    assert job.priority == 7


def test_disabled_job_waits_and_may_move(client, job_factory, pool_factory, refuses):
    first, second = pool_factory(1), pool_factory(1)
    job_id = job_factory(first)
    patch = models.BatchJobUpdateOptions(pool_info=models.BatchPoolInfo(pool_id=second))
    refuses(409, "OperationInvalidForCurrentState", client.update_job, job_id, patch)
    client.create_task(job_id, make_task("a", SLEEP))
    wait_until(lambda: client.get_task(job_id, "a").state == "running")
    disable = models.BatchJobDisableOptions(disable_tasks="requeue")
    client.begin_disable_job(job_id, disable, polling_interval=0).result()
    task = client.get_task(job_id, "a")
    assert (client.get_job(job_id).state, task.state, task.execution_info.requeue_count) == ("disabled", "active", 1)
    client.update_job(job_id, patch)
    client.begin_enable_job(job_id, polling_interval=0).result()
    wait_until(lambda: (client.get_task(job_id, "a").node_info or {}).get("poolId") == second)


def test_job_can_be_enabled_while_it_is_disabled(client, job_factory, pool_factory):
    """As in `test_batch_jobs` of azure-batch 14.2."""
    job_id = job_factory(pool_factory(1))
    client.create_task(job_id, make_task("a", SLEEP))
    wait_until(lambda: client.get_task(job_id, "a").state == "running")
    client.begin_disable_job(job_id, models.BatchJobDisableOptions(disable_tasks="wait"))
    assert client.get_job(job_id).state == "disabling"
    for _ in range(2):
        client.begin_enable_job(job_id, polling_interval=0).result()
        assert client.get_job(job_id).state == "active"
    assert client.get_task(job_id, "a").state == "running"


def test_deleted_job_disappears_with_its_tasks(client, job_factory, pool_factory, refuses):
    pool_id = pool_factory(1)
    job_id = job_factory(pool_id)
    client.create_task(job_id, make_task("a", SLEEP))
    wait_until(lambda: client.get_task(job_id, "a").state == "running")
    client.begin_delete_job(job_id, force=True, polling_interval=0).result()
    refuses(404, "JobNotFound", client.get_job, job_id)
    refuses(404, "JobNotFound", lambda: list(client.list_tasks(job_id)))
    (node,) = client.list_nodes(pool_id)
    wait_until(
        lambda: (
            "workitems"
            not in str([f.name for f in client.list_node_files(pool_id, node.id, recursive=True) if job_id in f.name])
        )
    )


def test_ending_job_cannot_change():
    with LocalBatch(pace="real", job_quota=2) as batch:
        credential = AzureNamedKeyCredential(batch.account, batch.key)
        with BatchClient(batch.endpoint, credential) as client:
            for job_id in ("a", "b", "c"):
                info = models.BatchPoolInfo(pool_id="p")
                job = models.BatchJobCreateOptions(id=job_id, pool_info=info)
                if job_id == "c":
                    with pytest.raises(HttpResponseError, match="ActiveJobAndScheduleQuotaReached"):
                        client.create_job(job)
                else:
                    client.create_job(job)
            client.begin_terminate_job("a", options=TERMINATION, polling_interval=30)
            assert client.get_job("a").state == "terminating"
            with pytest.raises(HttpResponseError, match="JobBeingTerminated"):
                client.create_task("a", make_task())
            client.begin_delete_job("b", polling_interval=30)
            assert client.get_job("b").state == "deleting"
            for call in (
                lambda: client.create_task("b", make_task()),
                lambda: client.begin_delete_job("b"),
                lambda: client.create_job(models.BatchJobCreateOptions(id="b", pool_info=info)),
            ):
                with pytest.raises(HttpResponseError, match="JobBeingDeleted"):
                    call()


def test_preparation_task_runs_first(client, job_factory, pool_factory, run, read, refuses):
    command = "/bin/bash -c 'echo made > $AZ_BATCH_NODE_SHARED_DIR/made'"
    pool_id = pool_factory(1)
    preparation = models.BatchJobPreparationTask(command_line=command)
    job_id = job_factory(pool_id, job_preparation_task=preparation)
    task = run("/bin/bash -c 'cat $AZ_BATCH_NODE_SHARED_DIR/made; ls $AZ_BATCH_JOB_PREP_WORKING_DIR'", job_id=job_id)
    assert read(task) == "made\n"
    (status,) = client.list_job_preparation_and_release_task_status(
        job_id, filter="jobPreparationTaskExecutionInfo/result eq 'success'"
    )
    info = status.job_preparation_task_execution_info
    assert (status.pool_id, status.node_id, info.state, info.exit_code) == (
        pool_id,
        task.node_info.node_id,
        "completed",
        0,
    )
    assert info.task_root_directory == f"workitems/{job_id}/job-1/jobpreparation"
    refuses(409, "TaskIdSameAsJobPreparationTask", client.create_task, job_id, make_task("jobpreparation"))


def test_preparation_status_needs_a_preparation_task(client, job_factory, refuses):
    job_id = job_factory()
    listing = client.list_job_preparation_and_release_task_status
    refuses(409, "JobPreparationTaskOrReleaseTaskNotSpecified", lambda: list(listing(job_id)))
