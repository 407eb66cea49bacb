"""Request bodies that were read by type: the rules between their properties, and what they change in records.

Properties without an effect are kept, and responses repeat them.

https://learn.microsoft.com/rest/api/batchservice/, version 2025-06-01
"""

from __future__ import annotations

from typing import cast

from localbatch import errors
from localbatch.account.images import NODE_AGENTS, listed_image
from localbatch.account.records import Job, Pool
from localbatch.account.specs import JobConstraints, JobSpec, Json, PoolSpec, TaskConstraints, TaskSpec
from localbatch.account.vm_sizes import is_vm_size
from localbatch.api.properties import check_duration, check_range, invalid, without
from localbatch.wire import INFINITE

# The range of maxTaskRetryCount; -1 is unlimited.
RETRIES = (-1, 2**31 - 1)
MAX_SLOTS = 256
MAX_NODES = 10_000
# https://learn.microsoft.com/rest/api/batchservice/tasks/create-task#taskdependencies
MAX_DEPENDENCY_CHARACTERS = 64_000
MAX_DEPENDENCY_RANGES = 100

# Pools.


def pool_spec(body: Json) -> PoolSpec:
    """Check the body of a request that creates a pool."""
    spec = without(pool_properties(body), "id", "targetDedicatedNodes", "targetLowPriorityNodes")
    return cast("PoolSpec", spec)


def pool_properties(body: Json) -> Json:
    """Check the properties of a pool or an automatic pool.

    https://learn.microsoft.com/rest/api/batchservice/pools/create-pool
    """
    if "vmSize" not in body:
        raise errors.missing_required_property(PropertyName="vmSize")
    if not {"virtualMachineConfiguration", "cloudServiceConfiguration"} & body.keys():
        raise errors.missing_required_property(PropertyName="virtualMachineConfiguration")
    spec = body | _settings(body)
    encryption = body.get("virtualMachineConfiguration", {}).get("diskEncryptionConfiguration", {})
    if "customerManagedKey" in encryption and not body.get("identity"):
        # Recorded: azure-sdk-for-js, sdk/batch/batch-rest/test/poolsAdditional.spec.ts
        reason = "Pool Identity is required when using CustomerManagedKey."
        raise errors.invalid_property_value(PropertyName="diskEncryptionConfiguration", Reason=reason)
    check_resize_timeout(body)
    # The formula sets the targets of a pool with autoscale.
    if body["enableAutoScale"]:
        if "targetDedicatedNodes" in body or "targetLowPriorityNodes" in body:
            raise invalid("enableAutoScale", "true", "A pool with autoscale must not have targets")
        if "autoScaleFormula" not in body:
            raise errors.missing_required_property(PropertyName="autoScaleFormula")
        spec["autoScaleEvaluationInterval"] = autoscale_interval(body)
    elif "autoScaleFormula" in body:
        raise invalid("autoScaleFormula", body["autoScaleFormula"], "Autoscale is not enabled on the pool")
    return spec


def _settings(body: Json) -> Json:
    """Check the properties of a pool that a request can create or replace, and return those that change."""
    _refuse_applications(body)
    check_range(body, "taskSlotsPerNode", 1, MAX_SLOTS)
    settings: Json = {}
    if "vmSize" in body:
        if not is_vm_size(body["vmSize"]):
            raise invalid("vmSize", body["vmSize"], "The specified vmSize is invalid or not supported")
        settings["vmSize"] = body["vmSize"].lower()
    if "virtualMachineConfiguration" in body:
        _check_machine(body["virtualMachineConfiguration"])
    if "startTask" in body:
        # An empty object removes the start task.
        settings["startTask"] = body["startTask"] or None
        if body["startTask"]:
            _check_command(body["startTask"])
            check_range(body["startTask"], "maxTaskRetryCount", *RETRIES)
    return settings


def _check_machine(machine: Json) -> None:
    reference, agent = machine["imageReference"], machine["nodeAgentSKUId"]
    # The images of users are not known here.
    if any(name.endswith("ImageId") for name in reference):
        if agent.lower() not in NODE_AGENTS:
            raise invalid("nodeAgentSKUId", agent, "The specified node agent is not supported.")
        return
    image = listed_image(reference)
    if not image:
        publisher, offer, sku = (reference.get(name, "") for name in ("publisher", "offer", "sku"))
        reason = f"The specified imageReference with publisher {publisher} offer {offer} sku {sku} is not supported."
        raise errors.invalid_property_value(PropertyName="imageReference", Reason=reason)
    if image.node_agent != agent.lower():
        raise invalid(
            "nodeAgentSKUId", agent, "The specified node agent does not support the specified imageReference."
        )
    for disk in machine.get("dataDisks", ()):
        if "managedDisk" not in disk:
            disk.setdefault("storageAccountType", "standard_lrs")


def _refuse_applications(body: Json) -> None:
    if body.get("applicationPackageReferences"):
        raise errors.invalid_application_package_references(Reason="The account has no applications")


def targets(body: Json, dedicated: int, low_priority: int) -> tuple[int, int]:
    """Return the target numbers of dedicated and spot nodes."""
    check_range(body, "targetDedicatedNodes", 0, MAX_NODES)
    check_range(body, "targetLowPriorityNodes", 0, MAX_NODES)
    return body.get("targetDedicatedNodes", dedicated), body.get("targetLowPriorityNodes", low_priority)


def check_resize_timeout(body: Json) -> None:
    """Check the timeout of a resize."""
    check_duration(body, "resizeTimeout", low="PT5M")


def autoscale_interval(body: Json, default: str = "PT15M") -> str:
    """Return the interval of autoscale evaluations."""
    check_duration(body, "autoScaleEvaluationInterval", low="PT5M", high="P7D")
    return str(body.get("autoScaleEvaluationInterval", default))


# https://learn.microsoft.com/rest/api/batchservice/pools/update-pool: these can change while the pool has nodes, and the
# others only while it has none.
ANY_TIME = frozenset(
    {"startTask", "metadata", "applicationPackageReferences", "certificateReferences", "targetNodeCommunicationMode"}
)


def pool_patch(body: Json, pool: Pool) -> Json:
    """Return the changes of a PATCH to a pool. None removes a property."""
    settled = [name for name in body if name not in ANY_TIME]
    if settled and pool.nodes:
        raise errors.operation_invalid_for_current_state(
            Reason=f"The pool has nodes; {', '.join(settled)} cannot change"
        )
    return body | _settings(body)


def pool_replacement(body: Json) -> Json:
    """Return the new start task, metadata and application packages of a pool. None removes a property."""
    kept = {name: value for name, value in body.items() if name in ANY_TIME}
    return {"startTask": None} | kept | _settings(kept)


# Jobs.


def job_spec(body: Json, *, scheduled: bool = False) -> JobSpec:
    """Check the body of a request that creates a job, or the specification of the jobs of a schedule.

    https://learn.microsoft.com/rest/api/batchservice/jobs/create-job
    """
    spec = body | _job_settings(body, scheduled=scheduled)
    if body.get("jobManagerTask"):
        task = spec["jobManagerTask"] = {**body["jobManagerTask"]}
        _check_command(task)
        check_range(task, "requiredSlots", 1, MAX_SLOTS)
        task["constraints"] = task_constraints(task, spec["constraints"]["maxTaskRetryCount"])
    if body.get("jobPreparationTask"):
        task = spec["jobPreparationTask"] = {**body["jobPreparationTask"]}
        _check_command(task)
        task["constraints"] = task_constraints(task, 0)
    if body.get("jobReleaseTask"):
        task = body["jobReleaseTask"]
        _check_command(task)
        check_duration(task, "maxWallClockTime", high="PT15M")
        # It runs on the nodes where the job preparation task has run.
        if not body.get("jobPreparationTask"):
            raise invalid("jobReleaseTask", task["id"], "A job release task needs a job preparation task")
    return cast("JobSpec", without(spec, "id"))


def _job_settings(body: Json, *, scheduled: bool = False) -> Json:
    """Check the properties of a job that a request can create or replace, and return those that are completed."""
    check_range(body, "priority", -1000, 1000)
    check_range(body, "maxParallelTasks", -1, 2**31 - 1)
    return {"constraints": job_constraints(body), "poolInfo": pool_info(body, scheduled=scheduled)}


def job_constraints(body: Json) -> JobConstraints:
    """Return the constraints of a job."""
    given = body.get("constraints", {})
    check_range(given, "maxTaskRetryCount", *RETRIES)
    return cast("JobConstraints", {"maxWallClockTime": INFINITE, "maxTaskRetryCount": 0} | given)


def pool_info(body: Json, *, scheduled: bool = False) -> Json:
    """Return the pool of a job: an existing one or the specification of an automatic one."""
    if "poolInfo" not in body:
        raise errors.missing_required_property(PropertyName="poolInfo")
    info = body["poolInfo"]
    auto = info.get("autoPoolSpecification")
    if not auto:
        if "poolId" not in info:
            raise errors.missing_required_property(PropertyName="poolId")
        return {"poolId": info["poolId"]}
    if info.get("poolId"):
        raise invalid("poolInfo", info["poolId"], "A job cannot have both poolId and autoPoolSpecification")
    if auto["poolLifetimeOption"] != "job" and not scheduled:
        raise invalid(
            "poolLifetimeOption", auto["poolLifetimeOption"], "Only job schedules can have pools with this lifetime"
        )
    pool = auto.get("pool", {})
    dedicated, low_priority = targets(pool, 0, 0)
    properties = pool_properties(pool)
    if not properties["enableAutoScale"]:
        properties |= {"targetDedicatedNodes": dedicated, "targetLowPriorityNodes": low_priority}
    return {"autoPoolSpecification": {**auto, "pool": properties}}


def job_patch(body: Json, job: Job) -> Json:
    """Return the changes of a PATCH to a job. Objects are replaced as a whole."""
    # The checks of a replacement need these two; they are not changed.
    kept = {name: job.spec[name] for name in ("poolInfo", "onAllTasksComplete")}
    everything = job_replacement(kept | body, job)
    return {name: value for name, value in everything.items() if name in body}


def job_replacement(body: Json, job: Job) -> Json:
    """Return the new properties of a PUT to a job. None removes a property."""
    changes = {"metadata": None} | body | _job_settings(body)
    if changes["poolInfo"] != job.spec["poolInfo"] and job.state != "disabled":
        raise errors.operation_invalid_for_current_state(Reason="Only a disabled job can move to another pool")
    if changes["onAllTasksComplete"] == "noaction" and job.spec["onAllTasksComplete"] == "terminatejob":
        raise invalid("onAllTasksComplete", "noaction", "The value cannot change from terminatejob to noaction")
    return changes


# Batch tasks.


def task_spec(body: Json, job: Job) -> TaskSpec:
    """Check the body of a request that creates a Batch task.

    https://learn.microsoft.com/rest/api/batchservice/tasks/create-task
    """
    for chore, error in (
        (job.spec.get("jobPreparationTask"), errors.task_id_same_as_job_preparation_task),
        (job.spec.get("jobReleaseTask"), errors.task_id_same_as_job_release_task),
    ):
        if chore and chore["id"].lower() == body["id"].lower():
            raise error()
    _check_command(body)
    check_range(body, "requiredSlots", 1, MAX_SLOTS)
    _check_dependencies(body, job)
    _check_exit_conditions(body.get("exitConditions", {}), job)
    for file in body.get("multiInstanceSettings", {}).get("commonResourceFiles", ()):
        _check_resource_file(file)
    constraints = task_constraints(body, job.spec["constraints"]["maxTaskRetryCount"])
    return cast("TaskSpec", without(body | {"constraints": constraints}, "id"))


def _check_dependencies(body: Json, job: Job) -> None:
    depends = body.get("dependsOn")
    if depends is None:
        return
    if not job.spec["usesTaskDependencies"]:
        raise errors.task_dependencies_not_specified_on_job()
    if sum(map(len, depends.get("taskIds", ()))) > MAX_DEPENDENCY_CHARACTERS:
        raise errors.task_dependency_list_too_long(MaxLimit=MAX_DEPENDENCY_CHARACTERS)
    ranges = depends.get("taskIdRanges", ())
    if len(ranges) > MAX_DEPENDENCY_RANGES:
        raise errors.task_dependency_ranges_too_long(MaxLimit=MAX_DEPENDENCY_RANGES)
    for each in ranges:
        _check_range_of_ids(each, "taskIdRanges")


def _check_range_of_ids(each: Json, name: str) -> None:
    for end in ("start", "end"):
        check_range(each, end, -(2**31), 2**31 - 1)
    if each["end"] < each["start"]:
        raise invalid(name, each, "The end must not be less than the start")


def _check_exit_conditions(conditions: Json, job: Job) -> None:
    options = [conditions.get(name, {}) for name in ("preProcessingError", "fileUploadError", "default")]
    for each in conditions.get("exitCodes", ()):
        check_range(each, "code", -(2**31), 2**32 - 1)
        options.append(each["exitOptions"])
    for each in conditions.get("exitCodeRanges", ()):
        _check_range_of_ids(each, "exitCodeRanges")
        options.append(each["exitOptions"])
    if job.spec["onTaskFailure"] == "noaction":
        for action in (each["jobAction"] for each in options if "jobAction" in each):
            raise invalid("jobAction", action, "onTaskFailure of the job is noaction")


def task_constraints(body: Json, retries: int) -> TaskConstraints:
    """Return the constraints of a Batch task. Without a retry count, that of the job applies.

    Recorded for a job manager task: https://github.com/Azure/azure-cli, test_batch_job_list_cmd
    """
    given = body.get("constraints", {})
    check_range(given, "maxTaskRetryCount", *RETRIES)
    defaults = {"maxWallClockTime": INFINITE, "retentionTime": "P7D", "maxTaskRetryCount": retries}
    return cast("TaskConstraints", defaults | given)


def _check_command(body: Json) -> None:
    """Check the properties that all kinds of tasks have."""
    if "commandLine" not in body:
        raise errors.missing_required_property(PropertyName="commandLine")
    if not body["commandLine"].strip():
        raise invalid("commandLine", "", "The value must not be empty")
    _refuse_applications(body)
    for file in body.get("resourceFiles", ()):
        _check_resource_file(file)


def _check_resource_file(file: Json) -> None:
    if file.get("autoStorageContainerName"):
        # Ignoring it would be worse: the task would miss its files.
        raise errors.unsupported_property(
            PropertyName="autoStorageContainerName", Reason="The account has no automatic storage"
        )
    # Exactly one source: a blob or a container.
    if bool(file.get("httpUrl")) == bool(file.get("storageContainerUrl")):
        raise invalid("resourceFiles", file, "A resource file must have one of httpUrl and storageContainerUrl")
    if file.get("httpUrl") and "filePath" not in file:
        raise errors.missing_required_property(PropertyName="filePath")
