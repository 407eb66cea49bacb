"""The properties of request bodies in all versions of the REST API since 2022. The service refuses others.

https://learn.microsoft.com/rest/api/batchservice/, versions 2022-01-01 to 2025-06-01

Objects that this server refuses or ignores are listed by name only, without their properties.
"""

from __future__ import annotations

from collections.abc import Mapping

from localbatch import errors
from localbatch.account.specs import Json

_RESIZE = "resizeTimeout nodeDeallocationOption"
_POOL = (
    "displayName vmSize virtualMachineConfiguration cloudServiceConfiguration enableInterNodeCommunication "
    "networkConfiguration startTask certificateReferences applicationPackageReferences applicationLicenses "
    "taskSlotsPerNode taskSchedulingPolicy userAccounts metadata mountConfiguration upgradePolicy resourceTags "
    "targetNodeCommunicationMode"
)
_SIZE = (
    "resizeTimeout targetDedicatedNodes targetLowPriorityNodes "
    "enableAutoScale autoScaleFormula autoScaleEvaluationInterval"
)
_JOB_CHANGE = "priority maxParallelTasks allowTaskPreemption constraints poolInfo onAllTasksComplete metadata networkConfiguration"
_JOB = (
    f"displayName usesTaskDependencies jobManagerTask jobPreparationTask jobReleaseTask onTaskFailure "
    f"commonEnvironmentSettings {_JOB_CHANGE}"
)
_COMMAND = "id commandLine containerSettings resourceFiles environmentSettings userIdentity constraints"
_TASK = f"{_COMMAND} displayName outputFiles requiredSlots applicationPackageReferences authenticationTokenSettings"

# By kind of body.
BODIES: Mapping[str, str] = {
    "pool": f"id {_POOL} {_SIZE} identity",
    "pool_patch": _POOL,
    "pool_properties": (
        "startTask certificateReferences applicationPackageReferences metadata targetNodeCommunicationMode"
    ),
    "resize": f"targetDedicatedNodes targetLowPriorityNodes {_RESIZE}",
    "remove_nodes": f"nodeList {_RESIZE}",
    "enable_autoscale": "autoScaleFormula autoScaleEvaluationInterval",
    "evaluate_autoscale": "autoScaleFormula",
    "job": f"id {_JOB}",
    "job_change": _JOB_CHANGE,
    "disable_job": "disableTasks",
    "terminate_job": "terminateReason",
    "job_schedule": "id displayName schedule jobSpecification metadata",
    "job_schedule_change": "schedule jobSpecification metadata",
    "task": f"{_TASK} exitConditions affinityInfo multiInstanceSettings dependsOn",
    "tasks": "value",
    "task_change": "constraints",
    "reboot": "nodeRebootOption",
    "reimage": "nodeReimageOption",
    "deallocate": "nodeDeallocateOption",
    "disable_scheduling": "nodeDisableSchedulingOption",
    "node_user": "name isAdmin expiryTime password sshPublicKey",
    "node_user_change": "expiryTime password sshPublicKey",
    "upload_logs": "containerUrl startTime endTime identityReference",
}

_EXIT = "jobAction dependencyAction"
# By the name of the property that holds the object or the list of objects.
INSIDE: Mapping[str, str] = {
    "affinityInfo": "affinityId",
    "autoPoolSpecification": "autoPoolIdPrefix poolLifetimeOption keepAlive pool",
    "autoUser": "scope elevationLevel",
    "commonEnvironmentSettings": "name value",
    "constraints": "maxWallClockTime retentionTime maxTaskRetryCount",
    "container": "path containerUrl identityReference uploadHeaders",
    "default": _EXIT,
    "dependsOn": "taskIds taskIdRanges",
    "destination": "container",
    "environmentSettings": "name value",
    "exitCodeRanges": "start end exitOptions",
    "exitCodes": "code exitOptions",
    "exitConditions": "exitCodes exitCodeRanges preProcessingError fileUploadError default",
    "exitOptions": _EXIT,
    "fileUploadError": _EXIT,
    "imageReference": (
        "publisher offer sku version virtualMachineImageId exactVersion sharedGalleryImageId communityGalleryImageId"
    ),
    "jobManagerTask": f"{_TASK} killJobOnCompletion runExclusive allowLowPriorityNode",
    "jobPreparationTask": f"{_COMMAND} waitForSuccess rerunOnNodeRebootAfterSuccess",
    "jobReleaseTask": f"{_COMMAND} maxWallClockTime retentionTime",
    "jobSpecification": _JOB,
    "metadata": "name value",
    "networkConfiguration": (
        "subnetId dynamicVNetAssignmentScope endpointConfiguration publicIPAddressConfiguration "
        "enableAcceleratedNetworking skipWithdrawFromVNet"
    ),
    "outputFiles": "filePattern destination uploadOptions",
    "pool": f"{_POOL} {_SIZE}",
    "poolInfo": "poolId autoPoolSpecification",
    "preProcessingError": _EXIT,
    "resourceFiles": (
        "autoStorageContainerName storageContainerUrl httpUrl blobPrefix filePath fileMode identityReference"
    ),
    "schedule": "doNotRunUntil doNotRunAfter startWindow recurrenceInterval",
    "startTask": f"{_COMMAND} maxTaskRetryCount waitForSuccess",
    "taskIdRanges": "start end",
    "taskSchedulingPolicy": "nodeFillType jobDefaultOrder",
    "uploadHeaders": "name value",
    "uploadOptions": "uploadCondition",
    "userAccounts": "name password elevationLevel linuxUserConfiguration windowsUserConfiguration",
    "userIdentity": "username autoUser",
    "value": BODIES["task"],
    "virtualMachineConfiguration": (
        "imageReference nodeAgentSKUId windowsConfiguration dataDisks licenseType containerConfiguration "
        "diskEncryptionConfiguration nodePlacementConfiguration extensions osDisk securityProfile "
        "serviceArtifactReference"
    ),
}


def check_properties(body: Json, kind: str) -> None:
    """Check that all properties of a body exist in some version of the API.

    Raises:
        ServiceError: UnsupportedProperty.
    """
    _check(body, BODIES[kind])


def _check(body: Json, names: str) -> None:
    known = names.split()
    for name, value in body.items():
        # Clients may send back the OData annotations of a response.
        if name not in known and not name.startswith("odata."):
            raise errors.unsupported_property(PropertyName=name)
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, dict) and name in INSIDE:
                _check(each, INSIDE[name])
