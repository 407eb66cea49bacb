"""Every error code of the service, caused by a request, with its status and message."""

import json
from collections.abc import Callable
from datetime import timedelta

import pytest
from azure.batch import BatchClient, models
from azure.core import MatchConditions
from azure.core.credentials import AzureNamedKeyCredential
from azure.core.exceptions import HttpResponseError

from localbatch import LocalBatch, errors, http_protocol
from localbatch.account.records import Report
from localbatch.rules import autoscale
from localbatch.testing import MACHINE

VERSION = "api-version=2025-06-01"
REQUEUE = {"nodeRebootOption": "requeue"}
TERMINATION = {"terminateReason": "enough"}
SLOW = 30


class Scene:
    """An account where everything takes long, so that what passes can be met; the test moves its instants on."""

    def __init__(self, batch, client, ask):
        self.batch, self.client, self.ask = batch, client, ask
        self.store, self.scheduler = batch._service.store, batch._service.scheduler
        self.now = batch._clock.now()

    def pass_time(self, **duration):
        self.now += timedelta(**duration)
        with self.store.lock:
            self.scheduler.tick(self.now)

    def pool(self, nodes=0, **options):
        targets = {} if options.get("enable_auto_scale") else {"target_dedicated_nodes": nodes}
        self.client.create_pool(models.BatchPoolCreateOptions(id="p", **MACHINE, **targets, **options))

    def steady_pool(self, **options):
        self.pool(**options)
        self.pass_time(seconds=SLOW)

    def node(self, state="idle"):
        self.pool(1)
        for each, seconds in (("creating", SLOW), ("starting", SLOW), ("idle", 2 * SLOW)):
            self.pass_time(seconds=seconds)
            if each == state:
                break
        (node,) = self.store.pools["p"].nodes.values()
        assert node.state == state
        return node.id

    def job(self, **options):
        info = models.BatchPoolInfo(pool_id="p")
        self.client.create_job(models.BatchJobCreateOptions(**{"id": "j", "pool_info": info} | options))

    def task(self, task_id="t", **options):
        self.client.create_task("j", models.BatchTaskCreateOptions(id=task_id, **{"command_line": "true"} | options))

    def run(self, exit_code=0, **options):
        self.node()
        self.job()
        self.task(**options)
        self.pass_time(seconds=1)
        with self.store.lock:
            # The server may have been as quick, and the process too.
            runs = list(self.store.runs)
            self.store.reports.extend(Report(run_id=run_id, exit_code=exit_code) for run_id in runs)
        self.pass_time(seconds=1)


@pytest.fixture
def scene(make_asker):
    with LocalBatch(pace="real", pool_quota=1, job_quota=1) as batch:
        credential = AzureNamedKeyCredential(batch.account, batch.key)
        with BatchClient(batch.endpoint, credential, retry_total=0) as client:
            yield Scene(batch, client, make_asker(batch))


CAUSES: dict[tuple[int, str], Callable] = {}


def causes(status, code):
    def register(cause):
        CAUSES[status, code] = cause
        return cause

    return register


def by(status, code, *steps):
    """Let the last of some steps cause an error."""

    def cause(scene):
        for step in steps[:-1]:
            step(scene)
        return steps[-1](scene)

    CAUSES[status, code] = cause


def get(target, **headers):
    return lambda scene: scene.ask("GET", target, **headers)[:2]


def create_pool(**options):
    return lambda scene: scene.pool(**options)


def create_job(**options):
    return lambda scene: scene.job(**options)


def create_task(task_id="t", **options):
    return lambda scene: scene.task(task_id, **options)


def run(**options):
    return lambda scene: scene.run(**options)


def call(method, *args, **options):
    return lambda scene: getattr(scene.client, method)(*args, **options)


def delete_pool(scene):
    scene.client.begin_delete_pool("p", polling_interval=SLOW)


def terminate_job(scene):
    scene.client.begin_terminate_job("j", options=TERMINATION, polling_interval=SLOW)


def delete_job(scene):
    scene.client.begin_delete_job("j", polling_interval=SLOW)


def create_schedule(schedule_id="s"):
    return call(
        "create_job_schedule",
        models.BatchJobScheduleCreateOptions(
            id=schedule_id,
            schedule=models.BatchJobScheduleConfiguration(),
            job_specification=models.BatchJobSpecification(pool_info=models.BatchPoolInfo(pool_id="p")),
        ),
    )


def change_schedule(verb):
    return call(f"begin_{verb}_job_schedule", "s", polling_interval=SLOW)


def steady_pool(scene):
    scene.steady_pool()


def later(scene):
    scene.pass_time(seconds=SLOW)


def evaluate(formula):
    return lambda scene: scene.client.enable_pool_auto_scale(
        "p", models.BatchPoolEnableAutoScaleOptions(auto_scale_formula=formula)
    )


def reboot_node_in(state):
    def cause(scene):
        node_id = scene.node(state)
        scene.client.begin_reboot_node("p", node_id, REQUEUE)

    return cause


DEPENDENCIES = models.BatchTaskDependencies
PREPARED = {
    "job_preparation_task": models.BatchJobPreparationTask(command_line="true"),
    "job_release_task": models.BatchJobReleaseTask(command_line="true"),
}
APPLICATION = [models.BatchApplicationPackageReference(application_id="a")]

by(400, "MissingRequiredProperty", call("create_pool", {"id": "p"}))
by(400, "TaskDependenciesNotSpecifiedOnJob", create_job(), create_task(depends_on=DEPENDENCIES(task_ids=["a"])))
by(
    400,
    "UnsupportedProperty",
    create_job(),
    create_task(resource_files=[models.ResourceFile(auto_storage_container_name="c")]),
)
by(400, "InvalidPropertyValue", create_pool(task_slots_per_node=1000))
by(
    400,
    "TaskDependencyListTooLong",
    create_job(uses_task_dependencies=True),
    create_task(depends_on=DEPENDENCIES(task_ids=[f"{n:064}" for n in range(1001)])),
)
by(
    400,
    "TaskDependencyRangesTooLong",
    create_job(uses_task_dependencies=True),
    create_task(depends_on=DEPENDENCIES(task_id_ranges=[models.BatchTaskIdRange(start=n, end=n) for n in range(101)])),
)
by(400, "MissingRequiredQueryParameter", get("/pools"))
by(400, "InvalidQueryParameterValue", lambda scene: list(scene.client.list_pools(filter="size eq 1")))
by(400, "OutOfRangeQueryParameterValue", lambda scene: list(scene.client.list_pools(max_results=1001)))
by(400, "InvalidHeaderValue", create_pool(), get(f"/pools/p?{VERSION}", if_modified_since="yesterday"))
by(400, "InvalidInput", get(f"/pools?{VERSION}", content_length="-1"))
by(400, "InvalidUri", get(f"/nothing?{VERSION}"))
by(400, "InvalidRequestBody", lambda scene: scene.ask("POST", f"/pools?{VERSION}", b"{")[:2])
by(400, "InvalidAuthenticationInfo", get(f"/pools?{VERSION}", authorization="Bearer x"))
by(400, "UnsupportedRequestVersion", get("/pools?api-version=2019-08-01.10.0"))
by(400, autoscale.SYNTAX_ERROR, steady_pool, evaluate("$TargetDedicatedNodes = ;"))
by(400, autoscale.TOO_LONG, steady_pool, evaluate("$TargetDedicatedNodes = 1;" + " " * 9000))
by(403, "AuthenticationFailed", get(f"/pools?{VERSION}", account="other"))
by(404, "PoolNotFound", call("get_pool", "p"))
by(404, "NodeNotFound", create_pool(), call("get_node", "p", "n"))
by(404, "JobNotFound", call("get_job", "j"))
by(404, "JobScheduleNotFound", call("get_job_schedule", "s"))
by(404, "ApplicationNotFound", call("get_application", "a"))
by(404, "NodeUserNotFound", lambda scene: scene.client.delete_node_user("p", scene.node(), "me"))
by(404, "TaskNotFound", create_job(), call("get_task", "j", "t"))
by(404, "FileNotFound", run(), call("delete_task_file", "j", "t", "none"))
by(405, "UnsupportedHttpVerb", lambda scene: scene.ask("PUT", f"/pools?{VERSION}", b"{}")[:2])
by(409, "OperationInvalidForCurrentState", create_job(), call("update_job", "j", {"poolInfo": {"poolId": "other"}}))
by(409, "PoolExists", create_pool(), create_pool())
by(409, "PoolBeingDeleted", create_pool(), delete_pool, delete_pool)
by(
    409,
    "PoolBeingResized",
    create_pool(),
    call("begin_resize_pool", "p", models.BatchPoolResizeOptions(target_dedicated_nodes=1)),
)
by(409, "PoolQuotaReached", create_pool(), call("create_pool", models.BatchPoolCreateOptions(id="q", **MACHINE)))
by(409, "NodeBeingCreated", reboot_node_in("creating"))
by(409, "NodeBeingStarted", reboot_node_in("starting"))
by(409, "JobExists", create_job(), create_job())
by(409, "JobWithSameIdExists", create_job(), create_schedule("j"))
by(409, "JobScheduleWithSameIdExists", create_schedule(), create_job(id="s"))
by(409, "JobScheduleExists", create_schedule(), create_schedule())
by(409, "JobScheduleDisabled", create_schedule(), *[call("disable_job_schedule", "s")] * 2)
by(409, "JobScheduleBeingTerminated", create_schedule(), *[change_schedule("terminate")] * 2)
by(409, "JobScheduleBeingDeleted", create_schedule(), *[change_schedule("delete")] * 2)
by(409, "JobScheduleCompleted", create_schedule(), change_schedule("terminate"), later, change_schedule("terminate"))
by(409, "JobBeingTerminated", create_job(), terminate_job, create_task())
by(409, "JobBeingDeleted", create_job(), delete_job, create_task())
by(409, "JobCompleted", create_job(), terminate_job, later, create_task())
by(409, "ActiveJobAndScheduleQuotaReached", create_job(), create_job(id="k"))
by(
    409,
    "JobPreparationTaskOrReleaseTaskNotSpecified",
    create_job(),
    lambda scene: list(scene.client.list_job_preparation_and_release_task_status("j")),
)
by(409, "TaskIdSameAsJobPreparationTask", create_job(**PREPARED), create_task("jobpreparation"))
by(409, "TaskIdSameAsJobReleaseTask", create_job(**PREPARED), create_task("jobrelease"))
by(409, "TaskExists", create_job(), create_task(), create_task())
by(409, "TaskCompleted", run(), call("terminate_task", "j", "t"))
by(409, "TaskNotCompleted", create_job(), create_task(), call("reactivate_task", "j", "t"))
by(409, "TaskSucceeded", run(), call("reactivate_task", "j", "t"))
by(409, "TaskFilesUnavailable", create_job(), create_task(), lambda scene: list(scene.client.list_task_files("j", "t")))
by(
    409,
    "TaskFilesCleanedup",
    run(constraints=models.BatchTaskConstraints(retention_time=timedelta(seconds=0.5))),
    later,
    lambda scene: list(scene.client.list_task_files("j", "t")),
)
by(409, "InvalidApplicationPackageReferences", create_pool(application_package_references=APPLICATION))
by(413, "RequestBodyTooLarge", create_job(), create_task(command_line="x" * (1 << 20)))
by(501, "NotImplemented", lambda scene: list(scene.client.list_node_extensions("p", "n")))
by(
    503,
    "TooManyEnableAutoScaleRequests",
    steady_pool,
    evaluate("$TargetDedicatedNodes = 0;"),
    later,
    evaluate("$TargetDedicatedNodes = 0;"),
)


@causes(401, "AuthenticationFailed")
def send_invalid_token(scene):
    scene.batch._service._oauth = True
    return scene.ask("GET", f"/pools?{VERSION}", authorization="Bearer x")[:2]


@causes(500, "OperationTimedOut")
def send_incomplete_body(scene):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http_protocol, "BODY_SECONDS", 0.2)
        return scene.ask("POST", f"/pools?{VERSION}", b"{}", content_length="9")[:2]


@causes(409, "NodeBeingRebooted")
def reboot_twice(scene):
    node_id = scene.node()
    for _ in range(2):
        scene.client.begin_reboot_node("p", node_id, REQUEUE, polling_interval=SLOW)


@causes(409, "NodeBeingReimaged")
def reboot_while_reimaging(scene):
    node_id = scene.node()
    scene.client.begin_reimage_node("p", node_id, {"nodeReimageOption": "requeue"}, polling_interval=SLOW)
    scene.client.begin_reboot_node("p", node_id, REQUEUE)


@causes(409, "NodeStateUnusable")
def reboot_unusable_node(scene):
    node_id = scene.node()
    with scene.store.lock:
        scene.scheduler.nodes.make_unusable(scene.store.node("p", node_id), "DiskFull", "Full", scene.now)
    scene.client.begin_reboot_node("p", node_id, REQUEUE)


@causes(409, "NodeUserExists")
def create_user_twice(scene):
    node_id = scene.node()
    for _ in range(2):
        scene.client.create_node_user("p", node_id, models.BatchNodeUserCreateOptions(name="me", password="secret"))


@causes(409, "NodeAlreadyInTargetSchedulingState")
def enable_enabled_node(scene):
    scene.client.enable_node_scheduling("p", scene.node())


@causes(304, "ConditionNotMet")
def get_unchanged_resource(scene):
    scene.pool()
    etag = scene.client.get_pool("p").etag
    scene.client.get_pool("p", etag=etag, match_condition=MatchConditions.IfModified)


@causes(412, "ConditionNotMet")
def patch_changed_resource(scene):
    scene.pool()
    patch = models.BatchPoolUpdateOptions(metadata=[])
    scene.client.update_pool("p", patch, etag="0x8D0", match_condition=MatchConditions.IfNotModified)


@causes(416, "InvalidRange")
def read_beyond_the_end(scene):
    scene.run()
    path = scene.batch._agent.root_of(scene.store.jobs["j"].tasks["t"].node) / "workitems" / "j" / "job-1" / "t"
    path.mkdir(parents=True, exist_ok=True)
    (path / "stdout.txt").write_text("short")
    return scene.ask("GET", f"/jobs/j/tasks/t/files/stdout.txt?{VERSION}", ocp_range="bytes=10-20")[:2]


@causes(500, "InternalError")
def call_failing_service(scene):
    scene.store.jobs = None
    try:
        list(scene.client.list_jobs())
    finally:
        scene.store.jobs = {}


FORMULA_CODES = [(400, code, None) for code in (autoscale.SYNTAX_ERROR, autoscale.TOO_LONG)]


@pytest.mark.parametrize(
    ("status", "code", "sentence"), [*errors.CODES, *FORMULA_CODES], ids=lambda value: str(value).partition(" ")[0]
)
def test_errors_have_status_and_message(scene, status, code, sentence):
    body = None
    try:
        seen, body = CAUSES[status, code](scene)
    except HttpResponseError as error:
        seen = error.status_code
        body = json.loads(error.response.text()) if error.response.text() else None
    assert seen == status
    if status == 304:  # It has no body.
        assert body is None
    else:
        assert (body["code"], body["message"]["lang"]) == (code, "en-US")
        assert sentence is None or body["message"]["value"].partition("\n")[0] == sentence


def test_no_other_error_is_caused_here():
    assert set(CAUSES) == {(status, code) for status, code, _ in (*errors.CODES, *FORMULA_CODES)}
