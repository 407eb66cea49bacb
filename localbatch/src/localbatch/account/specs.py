"""The properties of pools, jobs and tasks that the rules read, with the names of the REST API.

The specs also hold the other properties that a client sent, since responses repeat them. Optional properties are absent
unless the client sent them; `api.request_bodies` sets all others.

https://learn.microsoft.com/rest/api/batchservice/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict, TypeVar, cast

if TYPE_CHECKING:
    from typing_extensions import NotRequired

Json: TypeAlias = dict[str, Any]


class NameValue(TypedDict):
    """An environment setting."""

    name: str
    value: NotRequired[str]


class TaskConstraints(TypedDict):
    """The limits of a task; durations are in ISO 8601."""

    maxWallClockTime: str
    retentionTime: str
    maxTaskRetryCount: int


class CommandSpec(TypedDict):
    """What all kinds of tasks have."""

    commandLine: str
    environmentSettings: NotRequired[list[NameValue]]
    resourceFiles: NotRequired[list[Json]]
    outputFiles: NotRequired[list[Json]]


class ChoreSpec(CommandSpec):
    """A start task, a job preparation task or a job release task."""

    id: NotRequired[str]
    constraints: NotRequired[TaskConstraints]
    waitForSuccess: NotRequired[bool]
    rerunOnNodeRebootAfterSuccess: NotRequired[bool]
    maxTaskRetryCount: NotRequired[int]
    maxWallClockTime: NotRequired[str]


class IdRange(TypedDict):
    """A range of task ids that are numbers, both ends included. Clients may send numbers as strings."""

    start: int | str
    end: int | str


class Dependencies(TypedDict):
    """The Batch tasks that a Batch task depends on."""

    taskIds: NotRequired[list[str]]
    taskIdRanges: NotRequired[list[IdRange]]


class TaskSpec(CommandSpec):
    """A Batch task."""

    constraints: TaskConstraints
    requiredSlots: int
    affinityInfo: NotRequired[dict[str, str]]
    allowLowPriorityNode: NotRequired[bool]
    dependsOn: NotRequired[Dependencies]
    exitConditions: NotRequired[Json]


class JobManagerSpec(TaskSpec):
    """A job manager task."""

    id: str
    killJobOnCompletion: bool
    runExclusive: bool


class PoolSpec(TypedDict):
    """A pool. Its targets are attributes of the record."""

    vmSize: str
    resizeTimeout: str
    taskSlotsPerNode: int
    taskSchedulingPolicy: dict[str, str]
    enableAutoScale: bool
    enableInterNodeCommunication: bool
    autoScaleFormula: NotRequired[str]
    autoScaleEvaluationInterval: NotRequired[str]
    startTask: NotRequired[ChoreSpec]
    virtualMachineConfiguration: NotRequired[Json]
    networkConfiguration: NotRequired[Json]


class AutoPoolSpec(TypedDict):
    """A pool that is created for one job or one job schedule."""

    pool: Json
    keepAlive: bool
    poolLifetimeOption: str
    autoPoolIdPrefix: NotRequired[str]


class PoolInfo(TypedDict):
    """The pool of a job: an existing one or an automatic one."""

    poolId: NotRequired[str]
    autoPoolSpecification: NotRequired[AutoPoolSpec]


class JobConstraints(TypedDict):
    """The limits of a job."""

    maxWallClockTime: str
    maxTaskRetryCount: int


class JobSpec(TypedDict):
    """A job."""

    priority: int
    maxParallelTasks: int
    constraints: JobConstraints
    poolInfo: PoolInfo
    usesTaskDependencies: bool
    onAllTasksComplete: str
    onTaskFailure: str
    jobManagerTask: NotRequired[JobManagerSpec]
    jobPreparationTask: NotRequired[ChoreSpec]
    jobReleaseTask: NotRequired[ChoreSpec]
    commonEnvironmentSettings: NotRequired[list[NameValue]]


class Recurrence(TypedDict):
    """When a job schedule creates jobs: timestamps and durations."""

    doNotRunUntil: NotRequired[str]
    doNotRunAfter: NotRequired[str]
    startWindow: NotRequired[str]
    recurrenceInterval: NotRequired[str]


class ScheduleSpec(TypedDict):
    """A job schedule."""

    schedule: Recurrence
    jobSpecification: JobSpec


_Spec = TypeVar("_Spec", PoolSpec, JobSpec, ScheduleSpec)


def merge(spec: _Spec, changes: Json) -> _Spec:
    """Return a spec with some properties changed. A change to None removes the property."""
    merged = {name: value for name, value in {**spec, **changes}.items() if value is not None}
    return cast("_Spec", merged)
