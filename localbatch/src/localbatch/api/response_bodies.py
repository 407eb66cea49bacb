"""Response bodies: records as the JSON of the REST API, and the names that $select may have.

https://learn.microsoft.com/rest/api/batchservice/
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime

from localbatch.account.records import Chore, Counts, Execution, Job, JobSchedule, Node, Pool, Task, task_directory
from localbatch.account.specs import Json
from localbatch.wire import timestamp

# Invented details of nodes, which are processes of this machine.
NODE_AGENT_VERSION = "1.13.9"
ADDRESS = "127.0.0.1"
IPV6_ADDRESS = "::1"
SSH_PORT, RDP_PORT = 22, 3389
FIRST_FRONTEND_PORT = 50_000


def _present(**properties: object) -> Json:
    return {name: value for name, value in properties.items() if value is not None}


def pool_json(pool: Pool, base: str) -> Json:
    """Return the JSON of a pool."""
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
        # The properties that the client sent, so they come after the computed ones.
        **pool.spec,
        **_present(resizeErrors=pool.resize_errors or None, autoScaleRun=pool.autoscale_run),
    }


def _states(record: Pool | Job | JobSchedule | Task) -> Json:
    return _present(
        state=record.state,
        stateTransitionTime=timestamp(record.state_at),
        previousState=record.previous_state,
        previousStateTransitionTime=_timestamp(record.previous_state_at),
    )


def _timestamp(at: datetime | None) -> str | None:
    return timestamp(at) if at else None


def node_json(node: Node, pool: Pool, base: str) -> Json:
    """Return the JSON of a node."""
    return {
        "id": node.id,
        "url": _node_url(node, base),
        "state": node.state,
        "schedulingState": node.scheduling,
        "stateTransitionTime": timestamp(node.state_at),
        "allocationTime": timestamp(node.allocated_at),
        "ipAddress": ADDRESS,
        "affinityId": f"TVM:{node.id}",
        "vmSize": pool.spec["vmSize"],
        "isDedicated": node.dedicated,
        "totalTasksRun": node.tasks_run,
        "totalTasksSucceeded": node.tasks_succeeded,
        "runningTasksCount": len(node.tasks),
        "runningTaskSlotsCount": node.slots_used,
        "endpointConfiguration": {"inboundEndpoints": _endpoints(node, pool)},
        **_present(
            ipv6Address=IPV6_ADDRESS if _has_ipv6(pool) else None,
            lastBootTime=_timestamp(node.booted_at),
            startTask=node.start_task.spec if node.start_task else pool.spec.get("startTask"),
            startTaskInfo=chore_json(node.start_task) if node.start_task else None,
            recentTasks=[_recent_task(task, base) for task in node.recent_tasks] or None,
            errors=node.errors or None,
            nodeAgentInfo=_agent(node.booted_at) if node.booted_at else None,
            virtualMachineInfo=_machine(pool),
        ),
    }


def _endpoints(node: Node, pool: Pool) -> list[Json]:
    """Return the endpoints of a node: one for each NAT pool and IP version, then SSH."""
    nat_pools = _network(pool).get("endpointConfiguration", {}).get("inboundNATPools", ())
    addresses = [("", ADDRESS)] + ([("-ipv6", IPV6_ADDRESS)] if _has_ipv6(pool) else [])
    ports = [
        (f"{each['name']}{suffix}", each["protocol"], address, each["frontendPortRangeStart"], each["backendPort"])
        for suffix, address in addresses
        for each in nat_pools
    ]
    if pool.has_ssh:
        ports.append(("SSHRule", "tcp", ADDRESS, FIRST_FRONTEND_PORT, SSH_PORT))
    return [
        {
            "name": f"{name}.{node.number}",
            "protocol": protocol,
            "publicIPAddress": address,
            "publicFQDN": "localhost",
            "frontendPort": first + node.number,
            "backendPort": port,
        }
        for name, protocol, address, first, port in ports
    ]


def remote_login_json(node: Node, pool: Pool) -> Json:
    """Return the endpoint of SSH or RDP of a node, or else its address and the port of SSH."""
    ports = {each["backendPort"]: each["frontendPort"] for each in _endpoints(node, pool)}
    port = ports.get(SSH_PORT, ports.get(RDP_PORT, SSH_PORT))
    settings: Json = {"remoteLoginIPAddress": ADDRESS, "remoteLoginPort": port}
    if _has_ipv6(pool):
        settings |= {"ipv6RemoteLoginIPAddress": IPV6_ADDRESS, "ipv6RemoteLoginPort": port}
    return settings


def _network(pool: Pool) -> Json:
    return pool.spec.get("networkConfiguration", {})


def _has_ipv6(pool: Pool) -> bool:
    return "IPv6" in _network(pool).get("publicIPAddressConfiguration", {}).get("ipFamilies", ())


def _agent(booted_at: datetime) -> Json:
    return {"version": NODE_AGENT_VERSION, "lastUpdateTime": timestamp(booted_at)}


def _machine(pool: Pool) -> Json | None:
    # exactVersion resolves "latest"; there are no versions here.
    image = (pool.spec.get("virtualMachineConfiguration") or {}).get("imageReference")
    return {"imageReference": image | {"exactVersion": image["version"]}} if image else None


def _recent_task(task: Task, base: str) -> Json:
    return {
        "taskUrl": f"{base}/jobs/{task.job_id}/tasks/{task.id}",
        "jobId": task.job_id,
        "taskId": task.id,
        "taskState": task.state,
        "executionInfo": _task_execution(task.execution),
    }


def chore_json(chore: Chore) -> Json:
    """Return the JSON of the state of a start task or job preparation task."""
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
    # Only Batch tasks are requeued; chores end with their node.
    requeues = _present(requeueCount=execution.requeue_count, lastRequeueTime=_timestamp(execution.last_requeue_at))
    return _execution(execution) | requeues


def job_json(job: Job, base: str) -> Json:
    """Return the JSON of a job."""
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
            poolId=job.pool_id or None,
            schedulingError=job.scheduling_error,
            terminateReason=job.terminate_reason,
        ),
    }


def job_schedule_json(schedule: JobSchedule, next_run_at: datetime | None, base: str) -> Json:
    """Return the JSON of a job schedule."""
    recent = schedule.recent_job_id
    return {
        "id": schedule.id,
        "url": f"{base}/jobschedules/{schedule.id}",
        "eTag": schedule.etag,
        "lastModified": timestamp(schedule.modified_at),
        "creationTime": timestamp(schedule.created_at),
        **_states(schedule),
        **schedule.spec,
        "executionInfo": _present(
            nextRunTime=_timestamp(next_run_at),
            recentJob={"id": recent, "url": f"{base}/jobs/{recent}"} if recent else None,
            endTime=_timestamp(schedule.ended_at),
        ),
    }


def task_json(task: Task, base: str) -> Json:
    """Return the JSON of a Batch task."""
    return {
        "id": task.id,
        "url": f"{base}/jobs/{task.job_id}/tasks/{task.id}",
        "eTag": task.etag,
        # State changes do not modify a Batch task.
        "lastModified": timestamp(task.modified_at or task.created_at),
        "creationTime": timestamp(task.created_at),
        **_states(task),
        **task.spec,
        "executionInfo": _task_execution(task.execution),
        **_present(nodeInfo=_place(task, task.node, base) if task.node else None),
    }


def _place(task: Task, node: Node, base: str) -> Json:
    directory = task_directory(task.job_id, task.id)
    return {
        "affinityId": f"TVM:{node.id}",
        "nodeUrl": _node_url(node, base),
        "poolId": node.pool_id,
        "nodeId": node.id,
        "taskRootDirectory": directory,
        "taskRootDirectoryUrl": f"{_node_url(node, base)}/files/{directory}",
    }


def preparation_json(node: Node, job: Job, base: str) -> Json:
    """Return the JSON of the job preparation and release tasks of a job on a node."""
    body: Json = {"poolId": node.pool_id, "nodeId": node.id, "nodeUrl": _node_url(node, base)}
    for kind, chores in (("Preparation", node.preparations), ("Release", node.releases)):
        chore = chores.get(job.key)
        if chore:
            directory = task_directory(job.id, chore.spec["id"])
            body[f"job{kind}TaskExecutionInfo"] = chore_json(chore) | {
                "taskRootDirectory": directory,
                "taskRootDirectoryUrl": f"{_node_url(node, base)}/files/{directory}",
            }
    return body


def counts_json(job: Job) -> Json:
    """Return the JSON of the task counts of a job."""
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
    """Return the JSON of the node counts of a pool by state."""
    counts: Json = {"poolId": pool.id}
    for name, dedicated in (("dedicated", True), ("lowPriority", False)):
        # The API has camel case in counts and lower case in states.
        found = Counter(node.state for node in pool.nodes.values() if node.dedicated == dedicated)
        counts[name] = {state: found[state.lower()] for state in NODE_COUNTS} | {"total": found.total()}
    return counts


# The names that $select may have, by kind of record: the properties in all versions since 2022. Others have no $select.

# Properties that several kinds of records have.
_TAGS = ("id", "url", "eTag", "lastModified", "creationTime", "state", "stateTransitionTime", "stats", "displayName")
_PREVIOUS = ("previousState", "previousStateTransitionTime")


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


SELECTABLE: dict[str, frozenset[str]] = {
    "pools": _names(
        """allocationState allocationStateTransitionTime vmSize virtualMachineConfiguration resizeTimeout resizeErrors
        currentDedicatedNodes currentLowPriorityNodes targetDedicatedNodes targetLowPriorityNodes enableAutoScale
        autoScaleFormula autoScaleEvaluationInterval autoScaleRun enableInterNodeCommunication networkConfiguration
        startTask applicationPackageReferences taskSlotsPerNode taskSchedulingPolicy userAccounts metadata
        mountConfiguration identity upgradePolicy cloudServiceConfiguration certificateReferences applicationLicenses
        resourceTags targetNodeCommunicationMode currentNodeCommunicationMode"""
    ).union(_TAGS),
    "nodes": _names(
        """id url state schedulingState stateTransitionTime lastBootTime allocationTime ipAddress ipv6Address affinityId
        vmSize totalTasksRun runningTasksCount runningTaskSlotsCount totalTasksSucceeded recentTasks startTask
        startTaskInfo errors isDedicated endpointConfiguration nodeAgentInfo virtualMachineInfo
        certificateReferences"""
    ),
    "jobs": _names(
        """usesTaskDependencies priority allowTaskPreemption maxParallelTasks constraints jobManagerTask
        jobPreparationTask jobReleaseTask commonEnvironmentSettings poolInfo onAllTasksComplete onTaskFailure
        networkConfiguration metadata executionInfo"""
    ).union(_TAGS, _PREVIOUS),
    "jobschedules": _names("schedule jobSpecification executionInfo metadata").union(_TAGS, _PREVIOUS),
    "tasks": _names(
        """exitConditions commandLine containerSettings resourceFiles outputFiles environmentSettings affinityInfo
        constraints requiredSlots userIdentity executionInfo nodeInfo multiInstanceSettings dependsOn
        applicationPackageReferences authenticationTokenSettings"""
    ).union(_TAGS, _PREVIOUS),
    "jobpreparationandreleasetaskstatuslist": _names(
        "poolId nodeId nodeUrl jobPreparationTaskExecutionInfo jobReleaseTaskExecutionInfo"
    ),
    "subtasks": _names(
        """id nodeInfo startTime endTime exitCode containerInfo failureInfo state stateTransitionTime previousState
        previousStateTransitionTime result"""
    ),
}
