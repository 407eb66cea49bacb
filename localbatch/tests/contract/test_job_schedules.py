"""Job schedules: the jobs that they create, their states and their changes."""

from datetime import datetime, timedelta, timezone

import pytest
from azure.batch import BatchClient, models
from azure.core import MatchConditions
from azure.core.credentials import AzureNamedKeyCredential
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

from localbatch import LocalBatch
from localbatch.testing import MACHINE, wait_until

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
TERMINATION = {"terminateReason": "enough"}


@pytest.fixture
def batch(local_batch):
    """The client of an account of its own, whose clock the test moves."""
    credential = AzureNamedKeyCredential(local_batch.account, local_batch.key)
    with BatchClient(local_batch.endpoint, credential) as client:
        yield client


def specification(pool_info=None, **options):
    return models.BatchJobSpecification(pool_info=pool_info or models.BatchPoolInfo(pool_id="p"), **options)


def create(client, schedule_id="s", *, job=None, **recurrence):
    client.create_job_schedule(
        models.BatchJobScheduleCreateOptions(
            id=schedule_id,
            schedule=models.BatchJobScheduleConfiguration(**recurrence),
            job_specification=job or specification(),
        )
    )
    return client.get_job_schedule(schedule_id)


def recent(client, schedule_id="s"):
    return client.get_job_schedule(schedule_id).execution_info.recent_job.id


def wait_for_state(client, state, schedule_id="s"):
    return wait_until(lambda: (found := client.get_job_schedule(schedule_id)).state == state and found)


def files(client, pool_id, node_id):
    return [file.name for file in client.list_node_files(pool_id, node_id, recursive=True)]


def end_job(client, job_id):
    client.begin_terminate_job(job_id, TERMINATION, polling_interval=0).wait()
    wait_until(lambda: client.get_job(job_id).state == "completed")


def test_schedule_has_defaults_and_first_job(batch):
    job = specification(constraints=models.BatchJobConstraints(max_task_retry_count=2))
    schedule = create(batch, "Nightly", job=job, start_window=HOUR, recurrence_interval=DAY)
    assert (schedule.id, schedule.state, schedule.previous_state) == ("Nightly", "active", None)
    assert schedule.job_schedule_statistics is None
    assert schedule.url.endswith("/jobschedules/Nightly")
    assert schedule.creation_time == schedule.state_transition_time == schedule.last_modified
    assert schedule.schedule.as_dict() == {"startWindow": "PT1H", "recurrenceInterval": "P1D"}
    assert schedule.job_specification.as_dict() == {
        "priority": 0,
        "maxParallelTasks": -1,
        "allowTaskPreemption": False,
        "usesTaskDependencies": False,
        "onAllTasksComplete": "noaction",
        "onTaskFailure": "noaction",
        "constraints": {"maxWallClockTime": "P10675199DT2H48M5.4775807S", "maxTaskRetryCount": 2},
        "poolInfo": {"poolId": "p"},
    }
    info = schedule.execution_info
    assert info.next_run_time == schedule.creation_time + DAY
    assert (info.recent_job.id, info.end_time) == ("Nightly:job-1", None)
    assert info.recent_job.url.endswith("/jobs/Nightly:job-1")
    job = batch.get_job(info.recent_job.id)
    assert (job.state, job.constraints.max_task_retry_count, job.execution_info.pool_id) == ("active", 2, "p")
    assert [each.id for each in batch.list_jobs_from_schedule("nightly")] == ["Nightly:job-1"]
    assert batch.job_schedule_exists("NIGHTLY")


def test_each_recurrence_creates_a_job(batch, local_batch):
    created = create(batch, recurrence_interval=DAY).creation_time
    for number in (1, 2):
        end_job(batch, f"s:job-{number}")
        assert recent(batch) == f"s:job-{number}"
        local_batch.advance(DAY)
        wait_until(lambda number=number: recent(batch) == f"s:job-{number + 1}")
    assert batch.get_job_schedule("s").execution_info.next_run_time == created + 3 * DAY
    assert [job.id for job in batch.list_jobs_from_schedule("s")] == ["s:job-1", "s:job-2", "s:job-3"]
    assert [job.id for job in batch.list_jobs_from_schedule("s", filter="state eq 'active'")] == ["s:job-3"]


def test_active_job_delays_the_next(batch, local_batch):
    create(batch, recurrence_interval=DAY)
    local_batch.advance(DAY + HOUR)
    assert recent(batch) == "s:job-1"
    end_job(batch, "s:job-1")
    wait_until(lambda: recent(batch) == "s:job-2")


def test_missed_start_window_skips_a_job(batch, local_batch):
    created = create(batch, start_window=HOUR, recurrence_interval=DAY).creation_time
    local_batch.advance(DAY + 2 * HOUR)
    wait_until(lambda: batch.get_job_schedule("s").execution_info.next_run_time == created + 2 * DAY)
    end_job(batch, "s:job-1")
    assert recent(batch) == "s:job-1"
    # The clock passes the whole window, in which the schedule was ready.
    local_batch.advance(DAY)
    wait_until(lambda: recent(batch) == "s:job-2")


def test_schedule_waits_until_its_start(batch, local_batch):
    start = datetime.now(timezone.utc).replace(microsecond=0) + HOUR
    schedule = create(batch, do_not_run_until=start)
    assert (schedule.execution_info.next_run_time, schedule.execution_info.recent_job) == (start, None)
    assert schedule.schedule.do_not_run_until == start
    local_batch.advance(HOUR)
    wait_until(lambda: batch.get_job_schedule("s").execution_info.recent_job)
    assert batch.get_job_schedule("s").execution_info.next_run_time is None


def test_schedule_without_recurrence_completes_with_its_job(batch):
    create(batch, start_window=HOUR)
    end_job(batch, "s:job-1")
    schedule = wait_for_state(batch, "completed")
    assert (schedule.previous_state, schedule.execution_info.next_run_time) == ("active", None)
    assert schedule.execution_info.end_time == schedule.state_transition_time
    with pytest.raises(HttpResponseError) as caught:
        batch.disable_job_schedule("s")
    assert caught.value.error.code == "JobScheduleCompleted"


def test_schedule_completes_at_its_deadline(batch, local_batch):
    create(batch, recurrence_interval=DAY, do_not_run_after=datetime.now(timezone.utc) + HOUR)
    assert batch.get_job_schedule("s").execution_info.next_run_time is None
    end_job(batch, "s:job-1")
    assert batch.get_job_schedule("s").state == "active"
    local_batch.advance(HOUR)
    wait_for_state(batch, "completed")
    assert recent(batch) == "s:job-1"


def test_disabled_schedule_creates_no_jobs(batch, local_batch):
    etag = create(batch, recurrence_interval=DAY).etag
    batch.disable_job_schedule("s")
    schedule = batch.get_job_schedule("s")
    assert (schedule.state, schedule.previous_state, schedule.etag == etag) == ("disabled", "active", False)
    with pytest.raises(HttpResponseError) as caught:
        batch.disable_job_schedule("s")
    assert caught.value.error.code == "JobScheduleDisabled"
    end_job(batch, "s:job-1")
    local_batch.advance(DAY)
    assert (recent(batch), batch.get_job_schedule("s").state) == ("s:job-1", "disabled")
    batch.enable_job_schedule("s")
    assert batch.get_job_schedule("s").state == "active"
    wait_until(lambda: recent(batch) == "s:job-2")


def test_replaced_schedule_has_defaults(batch, local_batch):
    create(batch, job=specification(priority=7), start_window=HOUR, recurrence_interval=DAY)
    schedule = batch.get_job_schedule("s")
    schedule.schedule = models.BatchJobScheduleConfiguration(recurrence_interval=10 * HOUR)
    schedule.job_specification = specification(priority=8)
    batch.replace_job_schedule("s", schedule)
    schedule = batch.get_job_schedule("s")
    assert schedule.schedule.as_dict() == {"recurrenceInterval": "PT10H"}
    assert schedule.execution_info.next_run_time == schedule.creation_time + 10 * HOUR
    # Only later jobs have the new specification.
    assert batch.get_job("s:job-1").priority == 7
    end_job(batch, "s:job-1")
    local_batch.advance(10 * HOUR)
    wait_until(lambda: recent(batch) == "s:job-2")
    assert batch.get_job("s:job-2").priority == 8


def test_patch_keeps_absent_properties(batch):
    create(batch, job=specification(priority=7), recurrence_interval=DAY)
    metadata = [models.BatchMetadataItem(name="a", value="1")]
    batch.update_job_schedule("s", models.BatchJobScheduleUpdateOptions(metadata=metadata))
    recurrence = models.BatchJobScheduleConfiguration(recurrence_interval=5 * HOUR)
    batch.update_job_schedule("s", models.BatchJobScheduleUpdateOptions(schedule=recurrence))
    schedule = batch.get_job_schedule("s")
    assert schedule.job_specification.priority == 7
    assert (schedule.metadata, schedule.schedule.recurrence_interval) == (metadata, 5 * HOUR)


def test_outdated_etag_changes_nothing(batch):
    etag = create(batch, recurrence_interval=DAY).etag
    batch.disable_job_schedule("s", etag=etag, match_condition=MatchConditions.IfNotModified)
    with pytest.raises(HttpResponseError) as caught:
        batch.enable_job_schedule("s", etag=etag, match_condition=MatchConditions.IfNotModified)
    assert (caught.value.status_code, batch.get_job_schedule("s").state) == (412, "disabled")


def test_terminate_ends_the_active_job(batch):
    create(batch, recurrence_interval=DAY)
    batch.begin_terminate_job_schedule("s", polling_interval=0).wait()
    schedule = wait_for_state(batch, "completed")
    assert schedule.execution_info.end_time
    job = batch.get_job("s:job-1")
    assert (job.state, job.execution_info.termination_reason) == ("completed", "TerminateJobSchedule")


def test_delete_removes_schedule_and_jobs(batch):
    create(batch, "s", recurrence_interval=DAY)
    create(batch, "s-2", recurrence_interval=DAY)
    batch.begin_delete_job_schedule("s", polling_interval=0).wait()
    wait_until(lambda: [schedule.id for schedule in batch.list_job_schedules()] == ["s-2"])
    assert [job.id for job in batch.list_jobs()] == ["s-2:job-1"]
    with pytest.raises(ResourceNotFoundError) as caught:
        batch.get_job_schedule("s")
    assert caught.value.error.code == "JobScheduleNotFound"
    assert recent(batch, "s-2") == "s-2:job-1"
    create(batch, "s")


def test_lists_have_filters_and_pages(batch):
    for number in range(3):
        create(batch, f"s{number}", recurrence_interval=DAY)
    batch.disable_job_schedule("s1")
    pages = list(batch.list_job_schedules(max_results=2).by_page())
    assert [[schedule.id for schedule in page] for page in pages] == [["s0", "s1"], ["s2"]]
    found = list(batch.list_job_schedules(filter="state eq 'disabled'", select=["id", "state"]))
    assert [schedule.as_dict() for schedule in found] == [{"id": "s1", "state": "disabled"}]


def auto_pool(lifetime):
    pool = models.BatchPoolSpecification(**MACHINE, target_dedicated_nodes=1)
    auto = models.BatchAutoPoolSpecification(
        pool_lifetime_option=lifetime, keep_alive=False, pool=pool, auto_pool_id_prefix="auto"
    )
    return models.BatchPoolInfo(auto_pool_specification=auto)


@pytest.mark.parametrize(("lifetime", "is_kept"), [("job", False), ("jobschedule", True)])
def test_jobs_share_pools_by_their_lifetime(batch, local_batch, lifetime, is_kept):
    create(batch, job=specification(auto_pool(lifetime)), recurrence_interval=DAY)
    first = batch.get_job("s:job-1").execution_info.pool_id
    assert first.startswith("auto")
    end_job(batch, "s:job-1")
    wait_until(lambda: [pool.id for pool in batch.list_pools()] == [first] * is_kept)
    local_batch.advance(DAY)
    wait_until(lambda: recent(batch) == "s:job-2")
    assert (batch.get_job("s:job-2").execution_info.pool_id == first) == is_kept
    batch.begin_terminate_job_schedule("s", polling_interval=0).wait()
    wait_until(lambda: list(batch.list_pools()) == [])


def test_job_manager_runs_in_folder_of_schedule(batch):
    batch.create_pool(models.BatchPoolCreateOptions(id="p", **MACHINE, target_dedicated_nodes=1))
    manager = models.BatchJobManagerTask(id="jm", command_line="sh -c 'echo $AZ_BATCH_JOB_ID $AZ_BATCH_TASK_DIR'")
    create(batch, job=specification(job_manager_task=manager))
    wait_for_state(batch, "completed")
    task = batch.get_task("s:job-1", "jm")
    assert task.node_info.task_root_directory == "workitems/s/job-1/jm"
    assert "workitems/s/job-1" in files(batch, "p", task.node_info.node_id)
    output = b"".join(batch.download_task_file("s:job-1", "jm", "stdout.txt")).decode()
    assert output.startswith("s:job-1 /")
    assert output.endswith("/workitems/s/job-1/jm\n")
    batch.begin_delete_job_schedule("s", polling_interval=0).wait()
    wait_until(lambda: "workitems/s/job-1" not in files(batch, "p", task.node_info.node_id))


@pytest.mark.parametrize(
    ("recurrence", "name"),
    [
        ({"recurrence_interval": timedelta(seconds=59)}, "recurrenceInterval"),
        ({"start_window": timedelta(seconds=59)}, "startWindow"),
        (
            {
                "do_not_run_until": datetime(2030, 1, 2, tzinfo=timezone.utc),
                "do_not_run_after": datetime(2030, 1, 1, tzinfo=timezone.utc),
            },
            "doNotRunAfter",
        ),
    ],
)
def test_invalid_recurrence_is_refused(batch, recurrence, name):
    with pytest.raises(HttpResponseError) as caught:
        create(batch, **recurrence)
    assert (caught.value.status_code, caught.value.error.code) == (400, "InvalidPropertyValue")
    assert caught.value.error.details[0].message == name


def test_quota_delays_a_job(tmp_path):
    with (
        LocalBatch(state_dir=tmp_path, pace="instant", job_quota=2) as server,
        BatchClient(server.endpoint, AzureNamedKeyCredential(server.account, server.key)) as client,
    ):
        create(client, recurrence_interval=DAY)
        with pytest.raises(HttpResponseError) as caught:
            create(client, "other")
        assert caught.value.error.code == "ActiveJobAndScheduleQuotaReached"
        end_job(client, "s:job-1")
        client.create_job(models.BatchJobCreateOptions(id="j", pool_info=models.BatchPoolInfo(pool_id="p")))
        server.advance(DAY)
        assert recent(client) == "s:job-1"
        end_job(client, "j")
        server.advance(timedelta(minutes=1))
        wait_until(lambda: recent(client) == "s:job-2")
