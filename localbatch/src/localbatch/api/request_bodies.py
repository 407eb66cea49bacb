"""Request bodies: they are checked and completed with the defaults of the service.

Properties without an effect are kept, and responses repeat them. Properties whose effect is missing here are refused.

https://learn.microsoft.com/rest/api/batchservice/, version 2025-06-01. The defaults were recorded from the service.
"""

from __future__ import annotations

import re
from typing import cast

from localbatch import errors
from localbatch.account.records import Job, Pool
from localbatch.account.specs import JobConstraints, JobSpec, Json, PoolSpec, TaskConstraints, TaskSpec
from localbatch.api.properties import (
    check_metadata,
    check_texts,
    choice,
    duration,
    flag,
    identifier,
    integer,
    invalid,
    object_of,
    objects,
    refuse,
    required,
    strings,
    without,
)
from localbatch.wire import INFINITE

DEFAULT_USER: Json = {"autoUser": {"scope": "pool", "elevationLevel": "nonadmin"}}
UPLOAD_CONDITIONS = ("tasksuccess", "taskfailure", "taskcompletion")
# The range of maxTaskRetryCount; -1 is unlimited.
RETRIES = (-1, 2**31 - 1)
# https://learn.microsoft.com/rest/api/batchservice/tasks/create-task#taskdependencies
MAX_DEPENDENCY_CHARACTERS = 64_000
MAX_DEPENDENCY_RANGES = 100
MAX_PREFIX_CHARACTERS = 20

# Pools.


def pool_spec(body: Json) -> PoolSpec:
    """Read the body of a request that creates a pool."""
    identifier(body)
    spec = without(pool_properties(body), "id", "targetDedicatedNodes", "targetLowPriorityNodes")
    return cast("PoolSpec", spec)


def pool_properties(body: Json) -> Json:
    """Read the properties of a pool or an automatic pool.

    https://learn.microsoft.com/rest/api/batchservice/pools/create-pool
    """
    # The formula sets the targets of a pool with autoscale.
    automatic = flag(body, "enableAutoScale", default=False)
    spec = body | {
        "vmSize": required(body, "vmSize").lower(),
        "resizeTimeout": resize_timeout(body),
        "enableAutoScale": automatic,
        "enableInterNodeCommunication": flag(body, "enableInterNodeCommunication", default=False),
        "taskSlotsPerNode": integer(body, "taskSlotsPerNode", 1, 1, 256),
        "taskSchedulingPolicy": scheduling_policy(body),
    }
    if automatic:
        if body.get("targetDedicatedNodes") is not None or body.get("targetLowPriorityNodes") is not None:
            raise invalid("enableAutoScale", "true", "A pool with autoscale must not have targets")
        required(body, "autoScaleFormula")
        spec["autoScaleEvaluationInterval"] = autoscale_interval(body)
    elif body.get("autoScaleFormula") is not None:
        raise invalid("autoScaleFormula", body["autoScaleFormula"], "Autoscale is not enabled on the pool")
    return spec | _settings(body)


def _settings(body: Json) -> Json:
    """Read the properties of a pool that a request can create or replace unchanged."""
    refuse(body, "mountConfiguration")
    if body.get("applicationPackageReferences"):
        raise errors.invalid_application_package_references(Reason="The account has no applications")
    settings: Json = {}
    machine = object_of(body, "virtualMachineConfiguration")
    if machine:
        settings["virtualMachineConfiguration"] = machine | {
            "imageReference": {"version": "latest"} | object_of(machine, "imageReference")
        }
    if "startTask" in body:
        settings["startTask"] = start_task_spec(body)
    if body.get("userAccounts"):
        # Responses never contain passwords.
        settings["userAccounts"] = [without(account, "password") for account in objects(body, "userAccounts")]
    check_metadata(body)
    return settings


def targets(body: Json, dedicated: int, low_priority: int) -> tuple[int, int]:
    """Read the target numbers of dedicated and spot nodes."""
    return (
        integer(body, "targetDedicatedNodes", dedicated, 0, 10_000),
        integer(body, "targetLowPriorityNodes", low_priority, 0, 10_000),
    )


def resize_timeout(body: Json) -> str:
    """Read the timeout of a resize."""
    return duration(body, "resizeTimeout", "PT15M", low="PT5M")


def autoscale_interval(body: Json, default: str = "PT15M") -> str:
    """Read the interval of autoscale evaluations."""
    return duration(body, "autoScaleEvaluationInterval", default, low="PT5M", high="P7D")


def scheduling_policy(body: Json) -> Json:
    """Read the task scheduling policy."""
    policy = {"nodeFillType": "Spread"} | object_of(body, "taskSchedulingPolicy")
    choice(policy, "nodeFillType", ("spread", "pack"), "spread")
    return policy


def start_task_spec(body: Json) -> Json | None:
    """Read a start task. An empty object removes it."""
    task = object_of(body, "startTask")
    if not task:
        return None
    return _command(task) | {
        "maxTaskRetryCount": integer(task, "maxTaskRetryCount", 0, *RETRIES),
        "waitForSuccess": flag(task, "waitForSuccess", default=True),
    }


# https://learn.microsoft.com/rest/api/batchservice/pools/update-pool: these can change while the pool has nodes.
ANY_TIME = ("startTask", "metadata", "applicationPackageReferences")
# These can change only while the pool has no nodes.
WHEN_EMPTY = (
    "displayName",
    "vmSize",
    "taskSlotsPerNode",
    "taskSchedulingPolicy",
    "enableInterNodeCommunication",
    "virtualMachineConfiguration",
    "networkConfiguration",
    "userAccounts",
    "mountConfiguration",
    "upgradePolicy",
    "resourceTags",
)


def pool_patch(body: Json, pool: Pool) -> Json:
    """Read the changes of a PATCH to a pool. None removes a property."""
    # A PATCH with null changes nothing.
    given = {name: value for name, value in body.items() if value is not None}
    settled = [name for name in WHEN_EMPTY if name in given]
    if settled and pool.nodes:
        raise errors.operation_invalid_for_current_state(
            Reason=f"The pool has nodes; {', '.join(settled)} cannot change"
        )
    changes = {name: given[name] for name in (*ANY_TIME, *settled) if name in given} | _settings(given)
    if "vmSize" in given:
        changes["vmSize"] = required(given, "vmSize").lower()
    if "taskSlotsPerNode" in given:
        changes["taskSlotsPerNode"] = integer(given, "taskSlotsPerNode", 1, 1, 256)
    if "taskSchedulingPolicy" in given:
        changes["taskSchedulingPolicy"] = scheduling_policy(given)
    return changes


def pool_replacement(body: Json) -> Json:
    """Read the new start task, metadata and application packages of a pool. None removes a property."""
    # updateproperties replaces all of them, so that these are required.
    for name in ("metadata", "applicationPackageReferences"):
        if body.get(name) is None:
            raise errors.missing_required_property(PropertyName=name)
    return {"startTask": None, "metadata": body["metadata"]} | _settings(
        {name: body[name] for name in ANY_TIME if body.get(name) is not None}
    )


# Jobs.


def job_spec(body: Json, *, scheduled: bool = False) -> JobSpec:
    """Read the body of a request that creates a job, or the specification of the jobs of a schedule, which has no id.

    https://learn.microsoft.com/rest/api/batchservice/jobs/create-job
    """
    if not scheduled:
        identifier(body)
    spec = body | {
        "priority": _priority(body),
        "maxParallelTasks": _parallel(body),
        "usesTaskDependencies": flag(body, "usesTaskDependencies", default=False),
        "allowTaskPreemption": flag(body, "allowTaskPreemption", default=False),
        "constraints": job_constraints(body),
        "poolInfo": pool_info(body, scheduled=scheduled),
        "onAllTasksComplete": _completion_mode(body),
        "onTaskFailure": choice(body, "onTaskFailure", ("noaction", "performexitoptionsjobaction"), "noaction"),
    }
    if body.get("jobManagerTask"):
        spec["jobManagerTask"] = _manager(body, spec["constraints"]["maxTaskRetryCount"])
    spec |= _preparation_and_release(body)
    _check_environment(body, "commonEnvironmentSettings")
    check_metadata(body)
    return cast("JobSpec", without(spec, "id"))


def _priority(body: Json) -> int:
    return integer(body, "priority", 0, -1000, 1000)


def _parallel(body: Json) -> int:
    return integer(body, "maxParallelTasks", -1, -1, 2**31 - 1)


def _completion_mode(body: Json) -> str:
    return choice(body, "onAllTasksComplete", ("noaction", "terminatejob"), "noaction")


def _manager(body: Json, retries: int) -> Json:
    task = object_of(body, "jobManagerTask")
    return _command(task) | {
        "id": identifier(task),
        "constraints": task_constraints(task, retries),
        "requiredSlots": integer(task, "requiredSlots", 1, 1, 256),
        "killJobOnCompletion": flag(task, "killJobOnCompletion", default=True),
        "runExclusive": flag(task, "runExclusive", default=True),
        "allowLowPriorityNode": flag(task, "allowLowPriorityNode", default=True),
    }


def _preparation_and_release(body: Json) -> Json:
    spec: Json = {}
    if body.get("jobPreparationTask"):
        task = object_of(body, "jobPreparationTask")
        spec["jobPreparationTask"] = _command(task) | {
            "id": identifier({"id": task.get("id") or "jobpreparation"}),
            "constraints": task_constraints(task, 0),
            "waitForSuccess": flag(task, "waitForSuccess", default=True),
            "rerunOnNodeRebootAfterSuccess": flag(task, "rerunOnNodeRebootAfterSuccess", default=True),
        }
    if body.get("jobReleaseTask"):
        task = object_of(body, "jobReleaseTask")
        # It runs on the nodes where the job preparation task has run.
        if not spec:
            raise invalid("jobReleaseTask", task.get("id"), "A job release task needs a job preparation task")
        spec["jobReleaseTask"] = _command(task) | {
            "id": identifier({"id": task.get("id") or "jobrelease"}),
            "maxWallClockTime": duration(task, "maxWallClockTime", "PT15M", high="PT15M"),
            "retentionTime": duration(task, "retentionTime", "P7D"),
        }
    return spec


def job_constraints(body: Json) -> JobConstraints:
    """Read the constraints of a job."""
    given = object_of(body, "constraints")
    return {
        "maxWallClockTime": duration(given, "maxWallClockTime", INFINITE),
        "maxTaskRetryCount": integer(given, "maxTaskRetryCount", 0, *RETRIES),
    }


def pool_info(body: Json, *, scheduled: bool = False) -> Json:
    """Read the pool of a job: an existing one or the specification of an automatic one."""
    if not isinstance(body.get("poolInfo"), dict):
        raise errors.missing_required_property(PropertyName="poolInfo")
    info = object_of(body, "poolInfo")
    if not info.get("autoPoolSpecification"):
        return {"poolId": required(info, "poolId")}
    if info.get("poolId"):
        raise invalid("poolInfo", info["poolId"], "A job cannot have both poolId and autoPoolSpecification")
    auto = object_of(info, "autoPoolSpecification")
    required(auto, "poolLifetimeOption")
    if choice(auto, "poolLifetimeOption", ("job", "jobschedule"), "job") != "job" and not scheduled:
        raise invalid(
            "poolLifetimeOption", auto["poolLifetimeOption"], "Only job schedules can have pools with this lifetime"
        )
    check_texts(auto, "autoPoolIdPrefix")
    prefix = auto.get("autoPoolIdPrefix", "")
    if len(prefix) > MAX_PREFIX_CHARACTERS or (prefix and not re.fullmatch("[A-Za-z0-9_-]+", prefix)):
        raise invalid("autoPoolIdPrefix", prefix, "The value must be at most 20 letters, digits, hyphens, underscores")
    pool = object_of(auto, "pool")
    dedicated, low_priority = targets(pool, 0, 0)
    properties = pool_properties(pool)
    if not properties["enableAutoScale"]:
        properties |= {"targetDedicatedNodes": dedicated, "targetLowPriorityNodes": low_priority}
    auto |= {"keepAlive": flag(auto, "keepAlive", default=False), "pool": properties}
    return {"autoPoolSpecification": auto}


def job_patch(body: Json, job: Job) -> Json:
    """Read the changes of a PATCH to a job. Objects are replaced as a whole."""
    given = {name: value for name, value in body.items() if value is not None}
    # The checks of a replacement need these two; they are not changed.
    kept = {name: job.spec[name] for name in ("poolInfo", "onAllTasksComplete")}
    everything = job_replacement(kept | given, job)
    return {name: value for name, value in everything.items() if name in given}


def job_replacement(body: Json, job: Job) -> Json:
    """Read the new properties of a PUT to a job. Absent ones get their defaults, None removes a property."""
    changes: Json = {
        "priority": _priority(body),
        "maxParallelTasks": _parallel(body),
        "allowTaskPreemption": flag(body, "allowTaskPreemption", default=False),
        "constraints": job_constraints(body),
        "poolInfo": pool_info(body),
        "onAllTasksComplete": _completion_mode(body),
        "metadata": body.get("metadata"),
    }
    if body.get("networkConfiguration") is not None:
        changes["networkConfiguration"] = object_of(body, "networkConfiguration")
    check_metadata(body)
    if changes["poolInfo"] != job.spec["poolInfo"] and job.state != "disabled":
        raise errors.operation_invalid_for_current_state(Reason="Only a disabled job can move to another pool")
    if changes["onAllTasksComplete"] == "noaction" and job.spec["onAllTasksComplete"] == "terminatejob":
        raise invalid("onAllTasksComplete", "noaction", "The value cannot change from terminatejob to noaction")
    return changes


# Batch tasks.


def task_spec(body: Json, job: Job) -> TaskSpec:
    """Read the body of a request that creates a Batch task.

    https://learn.microsoft.com/rest/api/batchservice/tasks/create-task
    """
    task_id = identifier(body)
    for chore, error in (
        (job.spec.get("jobPreparationTask"), errors.task_id_same_as_job_preparation_task),
        (job.spec.get("jobReleaseTask"), errors.task_id_same_as_job_release_task),
    ):
        if chore and chore["id"].lower() == task_id.lower():
            raise error()
    refuse(body, "multiInstanceSettings")
    if body.get("dependsOn") is not None:
        _check_dependencies(object_of(body, "dependsOn"), job)
    if body.get("exitConditions") is not None:
        _check_exit_conditions(object_of(body, "exitConditions"), job)
    spec = _command(body) | {
        "constraints": task_constraints(body, job.spec["constraints"]["maxTaskRetryCount"]),
        "requiredSlots": integer(body, "requiredSlots", 1, 1, 256),
    }
    if body.get("affinityInfo") is not None:
        required(object_of(body, "affinityInfo"), "affinityId")
    return cast("TaskSpec", without(spec, "id"))


def _check_dependencies(depends: Json, job: Job) -> None:
    if not job.spec["usesTaskDependencies"]:
        raise errors.unsupported_property(PropertyName="dependsOn", Reason="The job does not use task dependencies")
    if sum(map(len, strings(depends, "taskIds"))) > MAX_DEPENDENCY_CHARACTERS:
        raise errors.task_dependency_list_too_long(MaxLimit=MAX_DEPENDENCY_CHARACTERS)
    ranges = objects(depends, "taskIdRanges")
    if len(ranges) > MAX_DEPENDENCY_RANGES:
        raise errors.task_dependency_ranges_too_long(MaxLimit=MAX_DEPENDENCY_RANGES)
    for each in ranges:
        _check_range(each, "taskIdRanges")


def _check_range(each: Json, name: str) -> None:
    for end in ("start", "end"):
        if each.get(end) is None:
            raise errors.missing_required_property(PropertyName=end)
    start = integer(each, "start", 0, -(2**31), 2**31 - 1)
    if integer(each, "end", 0, -(2**31), 2**31 - 1) < start:
        raise invalid(name, each, "The end must not be less than the start")


def _check_exit_conditions(conditions: Json, job: Job) -> None:
    options = [object_of(conditions, name) for name in ("preProcessingError", "fileUploadError", "default")]
    for each in objects(conditions, "exitCodes"):
        if each.get("code") is None:
            raise errors.missing_required_property(PropertyName="code")
        integer(each, "code", 0, -(2**31), 2**32 - 1)
        options.append(_exit_options(each))
    for each in objects(conditions, "exitCodeRanges"):
        _check_range(each, "exitCodeRanges")
        options.append(_exit_options(each))
    for each in options:
        choice(each, "dependencyAction", ("satisfy", "block"), "block")
        choice(each, "jobAction", ("none", "disable", "terminate"), "none")
        if each.get("jobAction") is not None and job.spec["onTaskFailure"] == "noaction":
            raise invalid("jobAction", each["jobAction"], "onTaskFailure of the job is noaction")


def _exit_options(mapping: Json) -> Json:
    if not isinstance(mapping.get("exitOptions"), dict):
        raise errors.missing_required_property(PropertyName="exitOptions")
    return object_of(mapping, "exitOptions")


def task_constraints(body: Json, retries: int) -> TaskConstraints:
    """Read the constraints of a Batch task. Without any, the retry count of the job applies."""
    given = object_of(body, "constraints")
    return {
        "maxWallClockTime": duration(given, "maxWallClockTime", INFINITE),
        "retentionTime": duration(given, "retentionTime", "P7D"),
        # An object without the count means 0 retries, no object the count of the job.
        "maxTaskRetryCount": integer(given, "maxTaskRetryCount", 0 if given else retries, *RETRIES),
    }


def _command(body: Json) -> Json:
    """Check the properties that all kinds of tasks have."""
    if not required(body, "commandLine").strip():
        raise invalid("commandLine", "", "The value must not be empty")
    refuse(body, "containerSettings")
    if body.get("applicationPackageReferences"):
        raise errors.invalid_application_package_references(Reason="The account has no applications")
    for file in objects(body, "resourceFiles"):
        _check_resource_file(file)
    for file in objects(body, "outputFiles"):
        _check_output_file(file)
    _check_environment(body, "environmentSettings")
    return {"userIdentity": DEFAULT_USER} | body


def _check_resource_file(file: Json) -> None:
    check_texts(file, "httpUrl", "storageContainerUrl", "filePath", "blobPrefix", "fileMode")
    refuse(file, "autoStorageContainerName")
    _check_identity(file)
    # Exactly one source: a blob or a container.
    if bool(file.get("httpUrl")) == bool(file.get("storageContainerUrl")):
        raise invalid("resourceFiles", file, "A resource file must have one of httpUrl and storageContainerUrl")
    if file.get("httpUrl"):
        required(file, "filePath")
    if file.get("fileMode") and not re.fullmatch("[0-7]{3,4}", file["fileMode"]):
        raise invalid("fileMode", file["fileMode"], "The value must be octal")


def _check_identity(body: Json) -> None:
    if body.get("identityReference") is not None:
        required(object_of(body, "identityReference"), "resourceId")


def _check_output_file(file: Json) -> None:
    required(file, "filePattern")
    container = object_of(object_of(file, "destination"), "container")
    _check_identity(container)
    required(container, "containerUrl")
    check_texts(container, "path")
    for header in objects(container, "uploadHeaders", required_name="name"):
        check_texts(header, "value")
    choice(object_of(file, "uploadOptions"), "uploadCondition", UPLOAD_CONDITIONS, "taskcompletion")


def _check_environment(body: Json, name: str) -> None:
    for setting in objects(body, name, required_name="name"):
        check_texts(setting, "value")
