"""Records to and from the JSON of the REST API: properties with their defaults, timestamps, durations, paging.

Source: Batch REST API 2025-06-01; the defaults are those that the service was recorded to answer.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from typing import TypeVar

from localbatch import errors
from localbatch.models import Chore, Counts, Execution, Job, Json, Node, Pool, Task

_T = TypeVar("_T")

# Instants and durations.

INFINITE = "P10675199DT2H48M5.4775807S"
"""The longest duration of .NET, which is how the service says that there is no limit."""

_TICKS = 10_000_000
"""Of 100 nanoseconds, in a second: the resolution of the service's durations."""
_MOST_TICKS = 2**63 - 1
_DURATION = re.compile(
    r"P(?=[\dT])(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+)W)?(?:(\d+)D)?"
    r"(?:T(?=\d)(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)(?:\.(\d{1,7})\d*)?S)?)?"
)
_UNIT_SECONDS = (365 * 86400, 30 * 86400, 7 * 86400, 86400, 3600, 60, 1)


def timestamp(at: datetime) -> str:
    """Write an instant as the service does, with seven digits of the second."""
    return at.strftime("%Y-%m-%dT%H:%M:%S.%f0Z")


def http_date(at: datetime) -> str:
    """Write an instant for a header."""
    return format_datetime(at, usegmt=True)


def read_http_date(text: str) -> datetime:
    """Read an instant of a header.

    Raises:
        ValueError: It is none.
    """
    at = parsedate_to_datetime(text)
    if at.tzinfo is None:
        raise ValueError(text)
    return at


def _read_ticks(text: str) -> int:
    match = _DURATION.fullmatch(text)
    if not match:
        raise ValueError(text)
    *whole, fraction = match.groups(default="0")
    seconds = sum(int(count) * unit for count, unit in zip(whole, _UNIT_SECONDS, strict=True))
    return min(seconds * _TICKS + int(fraction.ljust(7, "0")), _MOST_TICKS)


def normal_duration(text: str) -> str:
    """Write an ISO 8601 duration as .NET does: in days at most, a year of 365 and a month of 30.

    Raises:
        ValueError: It is no duration.
    """
    seconds, ticks = divmod(_read_ticks(text), _TICKS)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    fraction = f".{ticks:07}".rstrip("0") if ticks else ""
    time = (f"{hours}H" if hours else "") + (f"{minutes}M" if minutes else "")
    time += f"{seconds}{fraction}S" if seconds or ticks else ""
    if not days and not time:
        return "PT0S"
    return "P" + (f"{days}D" if days else "") + (f"T{time}" if time else "")


def read_duration(text: str) -> timedelta:
    """Read an ISO 8601 duration.

    Raises:
        ValueError: It is no duration.
    """
    return timedelta(microseconds=_read_ticks(text) // 10)


def expiry(start: datetime, duration: str) -> datetime | None:
    """Return the instant at which a duration is over, or None if that is beyond the calendar."""
    try:
        return start + read_duration(duration)
    except OverflowError:
        return None


def new_node_id(*, dedicated: bool) -> str:
    """Return an id of the service's form."""
    return f"tvmps_{secrets.token_hex(32)}_{'d' if dedicated else 'p'}"


# Reading properties.

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
USER: Json = {"autoUser": {"scope": "pool", "elevationLevel": "nonadmin"}}
UPLOAD_CONDITIONS = ("tasksuccess", "taskfailure", "taskcompletion")


def _invalid(name: str, value: object, reason: str) -> errors.ServiceError:
    return errors.invalid_property_value(PropertyName=name, PropertyValue=value, Reason=reason)


def _required(body: Json, name: str) -> str:
    value = body.get(name)
    if value is None:
        raise errors.missing_required_property(PropertyName=name)
    if not isinstance(value, str):
        raise _invalid(name, value, "The value must be a string")
    return value


def _object(body: Json, name: str) -> Json:
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _invalid(name, value, "The value must be an object")
    return dict(value)


def _objects(body: Json, name: str) -> list[Json]:
    value = body.get(name) or []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise _invalid(name, value, "The value must be a list of objects")
    return value


def _identifier(body: Json) -> str:
    value = _required(body, "id")
    if not _ID.fullmatch(value):
        raise _invalid("id", value, "The value must be 1 to 64 letters, digits, hyphens and underscores")
    return value


def integer(body: Json, name: str, default: int, low: int, high: int) -> int:
    """Read an integer, which may stand in quotes as the Azure CLI writes it."""
    value = body.get(name)
    if value is None:
        return default
    try:
        number = int(value) if isinstance(value, str) else value
    except ValueError:
        number = None
    if not isinstance(number, int) or isinstance(number, bool) or not low <= number <= high:
        raise _invalid(name, value, f"The value must be an integer from {low} to {high}")
    return number


def _flag(body: Json, name: str, *, default: bool) -> bool:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise _invalid(name, value, "The value must be true or false")
    return value


def choice(body: Json, name: str, options: Iterable[str], default: str) -> str:
    """Read a value of an enumeration, in whatever case."""
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, str) or value.lower() not in options:
        raise _invalid(name, value, f"The value must be one of {', '.join(options)}")
    return value.lower()


def duration(body: Json, name: str, default: str, low: str = "PT0S", high: str = INFINITE) -> str:
    """Read a duration and write it as .NET does."""
    value = body.get(name)
    if value is None:
        return default
    try:
        ticks = _read_ticks(value)
    except (ValueError, TypeError):
        raise _invalid(name, value, "The value must be an ISO 8601 duration") from None
    if not _read_ticks(low) <= ticks <= _read_ticks(high):
        raise _invalid(name, value, f"The value must be from {low} to {high}")
    return normal_duration(value)


def _refuse(body: Json, *names: str) -> None:
    # To take what would then not happen is worse than to refuse it.
    for name in names:
        if body.get(name):
            raise errors.unsupported_property(PropertyName=name, Reason="The local Batch service does not have it")


def _present(**properties: object) -> Json:
    return {name: value for name, value in properties.items() if value is not None}


def pool_spec(body: Json) -> Json:
    """Read the body of a request that creates a pool."""
    _identifier(body)
    _refuse(body, "mountConfiguration", "applicationPackageReferences")
    automatic = _flag(body, "enableAutoScale", default=False)
    spec = body | {
        "vmSize": _required(body, "vmSize").lower(),
        "resizeTimeout": resize_timeout(body),
        "enableAutoScale": automatic,
        "enableInterNodeCommunication": _flag(body, "enableInterNodeCommunication", default=False),
        "taskSlotsPerNode": integer(body, "taskSlotsPerNode", 1, 1, 256),
        "taskSchedulingPolicy": scheduling_policy(body),
    }
    if automatic:
        if body.get("targetDedicatedNodes") is not None or body.get("targetLowPriorityNodes") is not None:
            raise _invalid("enableAutoScale", "true", "A pool that scales automatically must not name its targets")
        _required(body, "autoScaleFormula")
        spec["autoScaleEvaluationInterval"] = autoscale_interval(body)
    elif body.get("autoScaleFormula") is not None:
        raise _invalid("autoScaleFormula", body["autoScaleFormula"], "The pool does not scale automatically")
    machine = _object(body, "virtualMachineConfiguration")
    if machine:
        spec["virtualMachineConfiguration"] = machine | {
            "imageReference": {"version": "latest"} | _object(machine, "imageReference")
        }
    if "startTask" in body:
        spec["startTask"] = start_task_spec(body)
    if "userAccounts" in body:
        spec["userAccounts"] = [_without(account, "password") for account in _objects(body, "userAccounts")]
    _check_metadata(body)
    return _without(spec, "id", "targetDedicatedNodes", "targetLowPriorityNodes")


def targets(body: Json, dedicated: int, low_priority: int) -> tuple[int, int]:
    """Read the numbers of nodes that a pool shall have."""
    return (
        integer(body, "targetDedicatedNodes", dedicated, 0, 10_000),
        integer(body, "targetLowPriorityNodes", low_priority, 0, 10_000),
    )


def resize_timeout(body: Json) -> str:
    """Read how long a resize may take."""
    return duration(body, "resizeTimeout", "PT15M", low="PT5M")


def autoscale_interval(body: Json, default: str = "PT15M") -> str:
    """Read how often a formula is evaluated."""
    return duration(body, "autoScaleEvaluationInterval", default, low="PT5M", high="P7D")


def scheduling_policy(body: Json) -> Json:
    """Read how Batch tasks are spread over nodes."""
    policy = {"nodeFillType": "Spread"} | _object(body, "taskSchedulingPolicy")
    choice(policy, "nodeFillType", ("spread", "pack"), "spread")
    return policy


def start_task_spec(body: Json) -> Json | None:
    """Read a start task; an empty object removes one."""
    task = _object(body, "startTask")
    if not task:
        return None
    return _command(task) | {
        "maxTaskRetryCount": integer(task, "maxTaskRetryCount", 0, -1, 2**31 - 1),
        "waitForSuccess": _flag(task, "waitForSuccess", default=True),
    }


def job_spec(body: Json) -> Json:
    """Read the body of a request that creates a job."""
    _identifier(body)
    _refuse(body, "jobManagerTask", "jobReleaseTask", "usesTaskDependencies", "allowTaskPreemption")
    failure_mode = choice(body, "onTaskFailure", ("noaction", "performexitoptionsjobaction"), "noaction")
    if failure_mode != "noaction":
        _refuse(body, "onTaskFailure")
    spec = body | {
        "priority": integer(body, "priority", 0, -1000, 1000),
        "maxParallelTasks": integer(body, "maxParallelTasks", -1, -1, 2**31 - 1),
        "usesTaskDependencies": False,
        "allowTaskPreemption": False,
        "constraints": job_constraints(body),
        "poolInfo": pool_info(body),
        "onAllTasksComplete": choice(body, "onAllTasksComplete", ("noaction", "terminatejob"), "noaction"),
        "onTaskFailure": failure_mode,
    }
    if body.get("jobPreparationTask"):
        task = _object(body, "jobPreparationTask")
        spec["jobPreparationTask"] = _command(task) | {
            "id": _identifier({"id": task.get("id") or "jobpreparation"}),
            "constraints": _task_constraints(task, 0),
            "waitForSuccess": _flag(task, "waitForSuccess", default=True),
            "rerunOnNodeRebootAfterSuccess": _flag(task, "rerunOnNodeRebootAfterSuccess", default=True),
        }
    _check_environment(body, "commonEnvironmentSettings")
    _check_metadata(body)
    return _without(spec, "id")


def job_constraints(body: Json) -> Json:
    """Read the constraints of a job."""
    given = _object(body, "constraints")
    return {
        "maxWallClockTime": duration(given, "maxWallClockTime", INFINITE),
        "maxTaskRetryCount": integer(given, "maxTaskRetryCount", 0, -1, 2**31 - 1),
    }


def pool_info(body: Json) -> Json:
    """Read which pool a job runs on."""
    if not isinstance(body.get("poolInfo"), dict):
        raise errors.missing_required_property(PropertyName="poolInfo")
    info = _object(body, "poolInfo")
    _refuse(info, "autoPoolSpecification")
    return {"poolId": _required(info, "poolId")}


def job_patch(body: Json, job: Job) -> Json:
    """Read the changes that a PATCH makes to a job's properties; an object is replaced as a whole."""
    changes: Json = {}
    if body.get("priority") is not None:
        changes["priority"] = integer(body, "priority", 0, -1000, 1000)
    if body.get("maxParallelTasks") is not None:
        changes["maxParallelTasks"] = integer(body, "maxParallelTasks", -1, -1, 2**31 - 1)
    if body.get("constraints") is not None:
        changes["constraints"] = job_constraints(body)
    if body.get("poolInfo") is not None:
        changes["poolInfo"] = pool_info(body)
        if changes["poolInfo"] != job.spec["poolInfo"] and job.state != "disabled":
            raise errors.operation_invalid_for_current_state(Reason="Only a disabled job can move to another pool")
    if body.get("metadata") is not None:
        _check_metadata(body)
        changes["metadata"] = body["metadata"]
    if body.get("onAllTasksComplete") is not None:
        mode = choice(body, "onAllTasksComplete", ("noaction", "terminatejob"), "noaction")
        if mode == "noaction" and job.spec["onAllTasksComplete"] == "terminatejob":
            raise _invalid("onAllTasksComplete", mode, "The value cannot be changed from terminatejob to noaction")
        changes["onAllTasksComplete"] = mode
    return changes


def pool_patch(body: Json, pool: Pool) -> Json:
    """Read the changes that a PATCH makes to a pool's properties; None removes one."""
    changes: Json = {}
    if "startTask" in body:
        changes["startTask"] = start_task_spec(body)
    if body.get("metadata") is not None:
        _check_metadata(body)
        changes["metadata"] = body["metadata"]
    settled = {name: body[name] for name in ("displayName", "vmSize") if body.get(name) is not None}
    if "vmSize" in settled:
        settled["vmSize"] = _required(body, "vmSize").lower()
    if body.get("taskSlotsPerNode") is not None:
        settled["taskSlotsPerNode"] = integer(body, "taskSlotsPerNode", 1, 1, 256)
    if body.get("taskSchedulingPolicy") is not None:
        settled["taskSchedulingPolicy"] = scheduling_policy(body)
    if settled and pool.nodes:
        raise errors.operation_invalid_for_current_state(
            Reason=f"The pool has nodes; {', '.join(settled)} cannot change"
        )
    return changes | settled


def task_spec(body: Json, job: Job) -> Json:
    """Read a Batch task as a client adds it to a job."""
    task_id = _identifier(body)
    preparation = job.spec.get("jobPreparationTask")
    if preparation and preparation["id"].lower() == task_id.lower():
        raise errors.task_id_same_as_job_preparation_task()
    _refuse(body, "dependsOn", "multiInstanceSettings", "exitConditions")
    spec = _command(body) | {
        "constraints": _task_constraints(body, job.spec["constraints"]["maxTaskRetryCount"]),
        "requiredSlots": integer(body, "requiredSlots", 1, 1, 256),
    }
    return _without(spec, "id")


def _task_constraints(body: Json, retries: int) -> Json:
    given = _object(body, "constraints")
    return {
        "maxWallClockTime": duration(given, "maxWallClockTime", INFINITE),
        "retentionTime": duration(given, "retentionTime", "P7D"),
        "maxTaskRetryCount": integer(given, "maxTaskRetryCount", 0 if given else retries, -1, 2**31 - 1),
    }


def _command(body: Json) -> Json:
    """Check what all kinds of tasks have in common."""
    if not _required(body, "commandLine").strip():
        raise _invalid("commandLine", "", "The value must not be empty")
    _refuse(body, "containerSettings", "applicationPackageReferences")
    for file in _objects(body, "resourceFiles"):
        _refuse(file, "autoStorageContainerName", "identityReference")
        if bool(file.get("httpUrl")) == bool(file.get("storageContainerUrl")):
            raise _invalid("resourceFiles", file, "A resource file must have one of httpUrl and storageContainerUrl")
        if file.get("httpUrl"):
            _required(file, "filePath")
        if file.get("fileMode") and not re.fullmatch("[0-7]{3,4}", file["fileMode"]):
            raise _invalid("fileMode", file["fileMode"], "The value must be octal")
    for file in _objects(body, "outputFiles"):
        _required(file, "filePattern")
        container = _object(_object(file, "destination"), "container")
        _refuse(container, "identityReference")
        _required(container, "containerUrl")
        choice(_object(file, "uploadOptions"), "uploadCondition", UPLOAD_CONDITIONS, "taskcompletion")
    _check_environment(body, "environmentSettings")
    return {"userIdentity": USER} | body


def _check_environment(body: Json, name: str) -> None:
    for setting in _objects(body, name):
        _required(setting, "name")


def _check_metadata(body: Json) -> None:
    for item in _objects(body, "metadata"):
        _required(item, "name")
        _required(item, "value")


def _without(body: Json, *names: str) -> Json:
    return {name: value for name, value in body.items() if name not in names}


# Writing records.


def pool_json(pool: Pool, base: str) -> Json:
    """Write a pool."""
    return {
        "id": pool.id,
        "url": f"{base}/pools/{pool.id}",
        "eTag": pool.etag,
        "lastModified": timestamp(pool.modified_at),
        "creationTime": timestamp(pool.created_at),
        "state": pool.state,
        "stateTransitionTime": timestamp(pool.state_at),
        "allocationState": pool.allocation.state,
        "allocationStateTransitionTime": timestamp(pool.allocation.state_at),
        "currentDedicatedNodes": pool.count_nodes(dedicated=True),
        "currentLowPriorityNodes": pool.count_nodes(dedicated=False),
        "targetDedicatedNodes": pool.target_dedicated,
        "targetLowPriorityNodes": pool.target_low_priority,
        **pool.spec,
        **_present(resizeErrors=pool.resize_errors or None, autoScaleRun=pool.autoscale_run),
    }


def _states(record: Pool | Job | Task) -> Json:
    return _present(
        state=record.state,
        stateTransitionTime=timestamp(record.state_at),
        previousState=record.previous_state,
        previousStateTransitionTime=_timestamp(record.previous_state_at),
    )


def _timestamp(at: datetime | None) -> str | None:
    return timestamp(at) if at else None


def node_json(node: Node, pool: Pool, base: str) -> Json:
    """Write a node."""
    return {
        "id": node.id,
        "url": _node_url(node, base),
        "state": node.state,
        "schedulingState": "enabled",
        "stateTransitionTime": timestamp(node.state_at),
        "allocationTime": timestamp(node.allocated_at),
        "ipAddress": "127.0.0.1",
        "affinityId": f"TVM:{node.id}",
        "vmSize": pool.spec["vmSize"],
        "isDedicated": node.dedicated,
        "totalTasksRun": node.tasks_run,
        "totalTasksSucceeded": node.tasks_succeeded,
        "runningTasksCount": len(node.tasks),
        "runningTaskSlotsCount": node.slots_used,
        **_present(
            lastBootTime=_timestamp(node.booted_at),
            startTask=node.start_task.spec if node.start_task else pool.spec.get("startTask"),
            startTaskInfo=chore_json(node.start_task) if node.start_task else None,
            recentTasks=[_recent_task(task, base) for task in node.recent_tasks] or None,
        ),
    }


def _recent_task(task: Task, base: str) -> Json:
    return {
        "taskUrl": f"{base}/jobs/{task.job_id}/tasks/{task.id}",
        "jobId": task.job_id,
        "taskId": task.id,
        "taskState": task.state,
        "executionInfo": _task_execution(task.execution),
    }


def chore_json(chore: Chore) -> Json:
    """Write what became of a start task or a job preparation task."""
    return {"state": chore.state} | _execution(chore.execution)


def _node_url(node: Node, base: str) -> str:
    return f"{base}/pools/{node.pool_id}/nodes/{node.id}"


def _execution(execution: Execution) -> Json:
    return _present(
        startTime=_timestamp(execution.started_at),
        endTime=_timestamp(execution.ended_at),
        exitCode=execution.exit_code,
        failureInfo=execution.failure,
        retryCount=execution.retry_count,
        lastRetryTime=_timestamp(execution.last_retry_at),
        result=execution.result,
    )


def _task_execution(execution: Execution) -> Json:
    requeues = _present(requeueCount=execution.requeue_count, lastRequeueTime=_timestamp(execution.last_requeue_at))
    return _execution(execution) | requeues


def job_json(job: Job, base: str) -> Json:
    """Write a job."""
    return {
        "id": job.id,
        "url": f"{base}/jobs/{job.id}",
        "eTag": job.etag,
        "lastModified": timestamp(job.modified_at),
        "creationTime": timestamp(job.created_at),
        **_states(job),
        **job.spec,
        "executionInfo": _present(
            startTime=timestamp(job.created_at),
            endTime=_timestamp(job.ended_at),
            poolId=job.pool_id,
            terminateReason=job.terminate_reason,
        ),
    }


def task_json(task: Task, base: str) -> Json:
    """Write a Batch task."""
    return {
        "id": task.id,
        "url": f"{base}/jobs/{task.job_id}/tasks/{task.id}",
        "eTag": task.etag,
        "lastModified": timestamp(task.created_at),
        "creationTime": timestamp(task.created_at),
        **_states(task),
        **task.spec,
        "executionInfo": _task_execution(task.execution),
        **_present(nodeInfo=_place(task, task.node, base) if task.node else None),
    }


def _place(task: Task, node: Node, base: str) -> Json:
    directory = f"workitems/{task.job_id}/job-1/{task.id}"
    return {
        "affinityId": f"TVM:{node.id}",
        "nodeUrl": _node_url(node, base),
        "poolId": node.pool_id,
        "nodeId": node.id,
        "taskRootDirectory": directory,
        "taskRootDirectoryUrl": f"{_node_url(node, base)}/files/{directory}",
    }


def preparation_json(node: Node, chore: Chore, job: Job, base: str) -> Json:
    """Write what became of a job preparation task on a node."""
    directory = f"workitems/{job.id}/job-1/{chore.spec['id']}"
    places = {"taskRootDirectory": directory, "taskRootDirectoryUrl": f"{_node_url(node, base)}/files/{directory}"}
    return {
        "poolId": node.pool_id,
        "nodeId": node.id,
        "nodeUrl": _node_url(node, base),
        "jobPreparationTaskExecutionInfo": chore_json(chore) | places,
    }


def counts_json(job: Job) -> Json:
    """Write the task counts of a job."""
    return {"taskCounts": _counts(job.task_counts), "taskSlotCounts": _counts(job.slot_counts)}


def _counts(counts: Counts) -> Json:
    return {name: getattr(counts, name) for name in ("active", "running", "completed", "succeeded", "failed")}


NODE_COUNTS = (
    "creating",
    "idle",
    "offline",
    "preempted",
    "rebooting",
    "reimaging",
    "running",
    "starting",
    "startTaskFailed",
    "leavingPool",
    "unknown",
    "unusable",
    "waitingForStartTask",
    "deallocated",
    "deallocating",
    "upgradingOS",
)


def node_counts_json(pool: Pool) -> Json:
    """Write how many nodes of a pool are in which state."""
    counts: Json = {"poolId": pool.id}
    for name, dedicated in (("dedicated", True), ("lowPriority", False)):
        found = [node.state for node in pool.nodes.values() if node.dedicated == dedicated]
        counts[name] = {state: found.count(state.lower()) for state in NODE_COUNTS} | {"total": len(found)}
    return counts


# Paging.

PAGE_SIZE = 1000
"""Of a list, unless maxresults asks for less. Source: Batch REST API, maxresults."""


def page(
    records: Mapping[str, _T], matches: Callable[[_T], bool], size: int, token: str | None
) -> tuple[list[_T], str | None]:
    """Return the matching records after a page's token in the order of their keys, and the next page's token."""
    after = _read_token(token) if token else ""
    keys = sorted(key for key, record in records.items() if key > after and matches(record))
    rest = keys[size:]
    return [records[key] for key in keys[:size]], _write_token(keys[size - 1]) if rest else None


def _write_token(key: str) -> str:
    # The SDK does not encode the link again: a plus or an ampersand would not come back as it was.
    return f"WATV2:{base64.urlsafe_b64encode(key.encode()).decode().rstrip('=')}:1$1"


def _read_token(token: str) -> str:
    try:
        text = token.split(":")[1]
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (IndexError, binascii.Error, UnicodeDecodeError):
        raise errors.invalid_query_parameter_value(QueryParameterName="$skiptoken", QueryParameterValue=token) from None
