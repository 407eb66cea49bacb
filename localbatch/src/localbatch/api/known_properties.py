"""The types of request bodies: their properties in all versions of the REST API since 2022, and their defaults.

https://learn.microsoft.com/rest/api/batchservice/, versions 2022-01-01 to 2025-06-01. `localbatch/tests/contract/test_bodies.py`
compares them with the models of the official SDK. The defaults and the spelling of enumerations were recorded from the service:
it repeats `pack` as `Pack`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from localbatch.account.specs import Json

_DEALLOCATION = "=requeue|terminate|taskcompletion|retaineddata"
_RESIZE = f"resizeTimeout:duration nodeDeallocationOption{_DEALLOCATION}"
_POOL = (
    "displayName vmSize virtualMachineConfiguration:VirtualMachineConfiguration "
    "cloudServiceConfiguration:CloudServiceConfiguration enableInterNodeCommunication:bool "
    "networkConfiguration:NetworkConfiguration startTask:StartTask certificateReferences:any[] "
    "applicationPackageReferences:ApplicationPackageReference[] applicationLicenses:any[] taskSlotsPerNode:int "
    "taskSchedulingPolicy:TaskSchedulingPolicy userAccounts:UserAccount[] metadata:MetadataItem[] "
    "mountConfiguration:MountConfiguration[] upgradePolicy:UpgradePolicy resourceTags:any "
    "targetNodeCommunicationMode=default|classic|simplified"
)
_SIZE = (
    "resizeTimeout:duration targetDedicatedNodes:int targetLowPriorityNodes:int "
    "enableAutoScale:bool autoScaleFormula autoScaleEvaluationInterval:duration"
)
_JOB_CHANGE = (
    "priority:int maxParallelTasks:int allowTaskPreemption:bool constraints:JobConstraints poolInfo:PoolInformation "
    "onAllTasksComplete=noaction|terminatejob metadata:MetadataItem[] networkConfiguration:JobNetworkConfiguration"
)
_JOB = (
    "displayName usesTaskDependencies:bool jobManagerTask:JobManagerTask jobPreparationTask:JobPreparationTask "
    "jobReleaseTask:JobReleaseTask onTaskFailure=noaction|performexitoptionsjobaction "
    f"commonEnvironmentSettings:EnvironmentSetting[] {_JOB_CHANGE}"
)
_CHORE = (
    "containerSettings:TaskContainerSettings resourceFiles:ResourceFile[] "
    "environmentSettings:EnvironmentSetting[] userIdentity:UserIdentity"
)
_COMMAND = f"commandLine* {_CHORE}"
_TASK = (
    f"{_COMMAND} displayName outputFiles:OutputFile[] requiredSlots:int constraints:TaskConstraints "
    "applicationPackageReferences:ApplicationPackageReference[] authenticationTokenSettings:AuthenticationTokenSettings"
)
_CACHING = "caching=none|readonly|readwrite"
_STORAGE = "storageAccountType=standard_lrs|premium_lrs|standardssd_lrs"
_METADATA = "metadata:MetadataItem[]"
_IDENTITY = "identityReference:NodeIdentityReference"

# The properties of each kind of body, and of each type inside it. An asterisk marks those that are required. A property is a string unless it has a kind after a
# colon: int, bool, duration, object, any, secret (a string that is never returned), ignored, or a type. An equals sign introduces the values of
# an enumeration as the service spells them, an at sign a key of FORMATS. [] marks lists.
_TYPES: Mapping[str, str] = {
    # Whole bodies.
    "pool": f"id*@id {_POOL} {_SIZE} identity:any",
    "pool_patch": _POOL,
    "pool_properties": (
        "startTask:StartTask certificateReferences:any[] metadata*:MetadataItem[] "
        "applicationPackageReferences*:ApplicationPackageReference[] targetNodeCommunicationMode=default|classic|simplified"
    ),
    "resize": f"targetDedicatedNodes:int targetLowPriorityNodes:int {_RESIZE}",
    "remove_nodes": f"nodeList*:string[] {_RESIZE}",
    "enable_autoscale": "autoScaleFormula autoScaleEvaluationInterval:duration",
    "evaluate_autoscale": "autoScaleFormula*",
    "job": f"id*@id {_JOB}",
    "job_change": _JOB_CHANGE,
    "job_replacement": _JOB_CHANGE,
    "job_schedule": f"id*@id displayName schedule*:Schedule jobSpecification*:JobSpecification {_METADATA}",
    "job_schedule_change": f"schedule:Schedule jobSpecification:JobSpecification {_METADATA}",
    "job_schedule_replacement": f"schedule:Schedule jobSpecification:JobSpecification {_METADATA}",
    "disable_job": "disableTasks*=requeue|terminate|wait",
    "terminate_job": "terminateReason",
    "task": (
        f"id*@id {_TASK} exitConditions:ExitConditions affinityInfo:AffinityInformation "
        "multiInstanceSettings:MultiInstanceSettings dependsOn:TaskDependencies"
    ),
    "tasks": "value*:object[]",
    "task_change": "constraints:TaskConstraints",
    "reboot": f"nodeRebootOption{_DEALLOCATION}",
    "reimage": f"nodeReimageOption{_DEALLOCATION}",
    "deallocate": f"nodeDeallocateOption{_DEALLOCATION}",
    "disable_scheduling": "nodeDisableSchedulingOption=requeue|terminate|taskcompletion",
    "node_user": "name* isAdmin:bool expiryTime password sshPublicKey",
    "node_user_change": "expiryTime password sshPublicKey",
    "upload_logs": f"containerUrl* startTime* endTime {_IDENTITY}",
    # Parts of pools.
    "PoolSpecification": f"{_POOL} {_SIZE}",
    "CloudServiceConfiguration": "osFamily* osVersion",
    "VirtualMachineConfiguration": (
        "imageReference*:ImageReference nodeAgentSKUId* windowsConfiguration:WindowsConfiguration dataDisks:DataDisk[] "
        "licenseType containerConfiguration:ContainerConfiguration "
        "diskEncryptionConfiguration:DiskEncryptionConfiguration nodePlacementConfiguration:NodePlacementConfiguration "
        "extensions:VMExtension[] osDisk:OSDisk securityProfile:SecurityProfile "
        "serviceArtifactReference:ServiceArtifactReference"
    ),
    "ImageReference": (
        "publisher offer sku version virtualMachineImageId@image exactVersion sharedGalleryImageId communityGalleryImageId"
    ),
    "WindowsConfiguration": "enableAutomaticUpdates:bool",
    "DataDisk": f"lun*:int {_CACHING} diskSizeGB*:int managedDisk:ManagedDisk {_STORAGE}",
    "OSDisk": (
        "ephemeralOSDiskSettings:DiffDiskSettings caching=None|ReadOnly|ReadWrite diskSizeGB:int managedDisk:ManagedDisk "
        "writeAcceleratorEnabled:bool"
    ),
    "DiffDiskSettings": "placement=cachedisk",
    "ManagedDisk": (f"diskEncryptionSet:DiskEncryptionSetParameters {_STORAGE} securityProfile:VMDiskSecurityProfile"),
    "DiskEncryptionSetParameters": "id",
    "VMDiskSecurityProfile": "securityEncryptionType=DiskWithVMGuestState|NonPersistedTPM|VMGuestStateOnly",
    "ContainerConfiguration": (
        "type*=dockerCompatible|criCompatible containerImageNames:string[] containerRegistries:ContainerRegistry[]"
    ),
    "ContainerRegistry": f"username password:secret registryServer {_IDENTITY}",
    "DiskEncryptionConfiguration": "customerManagedKey:DiskCustomerManagedKey targets=osdisk|temporarydisk[]",
    "DiskCustomerManagedKey": ("identityReference:PoolIdentityReference keyUrl rotationToLatestKeyVersionEnabled:bool"),
    "PoolIdentityReference": "resourceId",
    "NodePlacementConfiguration": "policy=regional|zonal",
    "VMExtension": (
        "name* publisher* type* typeHandlerVersion autoUpgradeMinorVersion:bool enableAutomaticUpgrade:bool settings:any "
        "protectedSettings:secret provisionAfterExtensions:string[]"
    ),
    "SecurityProfile": (
        "encryptionAtHost:bool proxyAgentSettings:ProxyAgentSettings securityType=trustedLaunch|confidentialvm "
        "uefiSettings:UefiSettings"
    ),
    "ProxyAgentSettings": "enabled:bool imds:HostEndpointSettings wireServer:HostEndpointSettings",
    "HostEndpointSettings": "inVMAccessControlProfileReferenceId mode=Audit|Enforce",
    "UefiSettings": "secureBootEnabled:bool vTpmEnabled:bool",
    "ServiceArtifactReference": "id*",
    "NetworkConfiguration": (
        "subnetId@subnet dynamicVNetAssignmentScope=none|job endpointConfiguration:PoolEndpointConfiguration "
        "publicIPAddressConfiguration:PublicIPAddressConfiguration enableAcceleratedNetworking:bool"
    ),
    "PoolEndpointConfiguration": "inboundNATPools*:InboundNATPool[]",
    "InboundNATPool": (
        "name* protocol*=tcp|udp backendPort*:int frontendPortRangeStart*:int frontendPortRangeEnd*:int "
        "networkSecurityGroupRules:NetworkSecurityGroupRule[]"
    ),
    "NetworkSecurityGroupRule": "priority*:int access*=allow|deny sourceAddressPrefix* sourcePortRanges:string[]",
    "PublicIPAddressConfiguration": (
        "provision=batchmanaged|usermanaged|nopublicipaddresses ipFamilies=IPv4|IPv6[] ipAddressIds:string[] ipTags:IPTag[]"
    ),
    "IPTag": "ipTagType tag",
    # An empty start task removes the one of the pool.
    "StartTask": f"commandLine {_CHORE} maxTaskRetryCount:int waitForSuccess:bool",
    "TaskSchedulingPolicy": "nodeFillType=Spread|Pack jobDefaultOrder=none|creationtime",
    "UserAccount": (
        "name* password:secret elevationLevel=nonadmin|admin linuxUserConfiguration:LinuxUserConfiguration "
        "windowsUserConfiguration:WindowsUserConfiguration"
    ),
    "LinuxUserConfiguration": "uid:int gid:int sshPrivateKey:secret",
    "WindowsUserConfiguration": "loginMode=batch|interactive",
    "MountConfiguration": (
        "azureBlobFileSystemConfiguration:AzureBlobFileSystemConfiguration nfsMountConfiguration:NFSMountConfiguration "
        "cifsMountConfiguration:CIFSMountConfiguration azureFileShareConfiguration:AzureFileShareConfiguration"
    ),
    "AzureBlobFileSystemConfiguration": (
        f"accountName* containerName* accountKey:secret sasKey:secret blobfuseOptions relativeMountPath* {_IDENTITY}"
    ),
    "NFSMountConfiguration": "source* relativeMountPath* mountOptions",
    "CIFSMountConfiguration": "username* source* relativeMountPath* mountOptions password*:secret",
    "AzureFileShareConfiguration": "accountName* accountKey*:secret azureFileUrl* relativeMountPath* mountOptions",
    "UpgradePolicy": (
        "mode*=automatic|manual|rolling automaticOSUpgradePolicy:AutomaticOSUpgradePolicy "
        "rollingUpgradePolicy:RollingUpgradePolicy"
    ),
    "AutomaticOSUpgradePolicy": (
        "disableAutomaticRollback:bool enableAutomaticOSUpgrade:bool useRollingUpgradePolicy:bool "
        "osRollingUpgradeDeferral:bool"
    ),
    # The pause is repeated as sent: P0D stays P0D.
    "RollingUpgradePolicy": (
        "enableCrossZoneUpgrade:bool maxBatchInstancePercent:int maxUnhealthyInstancePercent:int "
        "maxUnhealthyUpgradedInstancePercent:int pauseTimeBetweenBatches prioritizeUnhealthyInstances:bool "
        "rollbackFailedInstancesOnPolicyBreach:bool"
    ),
    # Parts of jobs and tasks.
    "JobSpecification": _JOB,
    "Schedule": "doNotRunUntil doNotRunAfter startWindow:duration recurrenceInterval:duration",
    "PoolInformation": "poolId autoPoolSpecification:AutoPoolSpecification",
    "AutoPoolSpecification": (
        "autoPoolIdPrefix@prefix poolLifetimeOption*=job|jobschedule keepAlive:bool pool:PoolSpecification"
    ),
    "JobConstraints": "maxWallClockTime:duration maxTaskRetryCount:int",
    "JobNetworkConfiguration": "subnetId*@subnet skipWithdrawFromVNet:bool",
    "JobManagerTask": f"id*@id {_TASK} killJobOnCompletion:bool runExclusive:bool allowLowPriorityNode:bool",
    "JobPreparationTask": (
        f"id@id {_COMMAND} constraints:TaskConstraints waitForSuccess:bool rerunOnNodeRebootAfterSuccess:bool"
    ),
    "JobReleaseTask": f"id@id {_COMMAND} maxWallClockTime:duration retentionTime:duration",
    "MetadataItem": "name* value*",
    "EnvironmentSetting": "name* value",
    "ApplicationPackageReference": "applicationId* version",
    "AuthenticationTokenSettings": "access=job[]",
    "TaskContainerSettings": (
        "containerRunOptions imageName* registry:ContainerRegistry workingDirectory=taskWorkingDirectory|containerImageDefault "
        "containerHostBatchBindMounts:ContainerHostBatchBindMountEntry[]"
    ),
    "ContainerHostBatchBindMountEntry": ("source=Shared|Startup|VfsMounts|Task|JobPrep|Applications isReadOnly:bool"),
    "ResourceFile": (
        f"autoStorageContainerName storageContainerUrl httpUrl blobPrefix filePath fileMode@mode {_IDENTITY}"
    ),
    "NodeIdentityReference": "resourceId*",
    "UserIdentity": "username autoUser:AutoUserSpecification",
    "AutoUserSpecification": "scope=task|pool elevationLevel=nonadmin|admin",
    "OutputFile": "filePattern* destination*:OutputFileDestination uploadOptions:OutputFileUploadConfiguration",
    "OutputFileDestination": "container*:OutputFileBlobContainerDestination",
    "OutputFileBlobContainerDestination": f"path containerUrl* {_IDENTITY} uploadHeaders:UploadHeader[]",
    "UploadHeader": "name* value",
    "OutputFileUploadConfiguration": "uploadCondition=TaskSuccess|TaskFailure|TaskCompletion",
    "TaskConstraints": "maxWallClockTime:duration retentionTime:duration maxTaskRetryCount:int",
    "ExitConditions": (
        "exitCodes:ExitCodeMapping[] exitCodeRanges:ExitCodeRangeMapping[] preProcessingError:ExitOptions "
        "fileUploadError:ExitOptions default:ExitOptions"
    ),
    "ExitCodeMapping": "code*:int exitOptions*:ExitOptions",
    "ExitCodeRangeMapping": "start*:int end*:int exitOptions*:ExitOptions",
    "ExitOptions": "jobAction=none|disable|terminate dependencyAction=satisfy|block",
    "AffinityInformation": "affinityId*",
    "MultiInstanceSettings": "numberOfInstances:int coordinationCommandLine* commonResourceFiles:ResourceFile[]",
    "TaskDependencies": "taskIds:string[] taskIdRanges:TaskIdRange[]",
    "TaskIdRange": "start*:int end*:int",
}
_USER: Json = {"userIdentity": {"autoUser": {"scope": "pool", "elevationLevel": "nonadmin"}}}
_POOL_DEFAULTS: Json = {
    "resizeTimeout": "PT15M",
    "enableAutoScale": False,
    "enableInterNodeCommunication": False,
    "taskSlotsPerNode": 1,
    "taskSchedulingPolicy": {"nodeFillType": "Spread", "jobDefaultOrder": "none"},
}
_REPLACEMENT_DEFAULTS: Json = {
    "priority": 0,
    "maxParallelTasks": -1,
    "allowTaskPreemption": False,
    "onAllTasksComplete": "noaction",
}
_JOB_DEFAULTS: Json = _REPLACEMENT_DEFAULTS | {"usesTaskDependencies": False, "onTaskFailure": "noaction"}
# The defaults of properties that the service fills in, unless the object is empty.
DEFAULTS: Mapping[str, Json] = {
    "pool": _POOL_DEFAULTS,
    "PoolSpecification": _POOL_DEFAULTS,
    "CloudServiceConfiguration": {"osVersion": "*"},
    "ImageReference": {"version": "latest"},
    "DataDisk": {"caching": "none"},
    "OSDisk": {"ephemeralOSDiskSettings": {}},
    "NetworkConfiguration": {"dynamicVNetAssignmentScope": "none", "enableAcceleratedNetworking": False},
    "NetworkSecurityGroupRule": {"sourcePortRanges": ["*"]},
    "StartTask": _USER | {"maxTaskRetryCount": 0, "waitForSuccess": True},
    "TaskSchedulingPolicy": _POOL_DEFAULTS["taskSchedulingPolicy"],
    "UserAccount": {"elevationLevel": "nonadmin"},
    "job": _JOB_DEFAULTS,
    "JobSpecification": _JOB_DEFAULTS,
    "job_replacement": _REPLACEMENT_DEFAULTS,
    "AutoPoolSpecification": {"keepAlive": False},
    "JobManagerTask": _USER
    | {"requiredSlots": 1, "killJobOnCompletion": True, "runExclusive": True, "allowLowPriorityNode": True},
    "JobPreparationTask": _USER
    | {"id": "jobpreparation", "waitForSuccess": True, "rerunOnNodeRebootAfterSuccess": True},
    "JobReleaseTask": _USER | {"id": "jobrelease", "maxWallClockTime": "PT15M", "retentionTime": "P7D"},
    "task": _USER | {"requiredSlots": 1},
    "TaskContainerSettings": {"workingDirectory": "taskWorkingDirectory"},
    "AutoUserSpecification": _USER["userIdentity"]["autoUser"],
    "OutputFile": {"uploadOptions": {"uploadCondition": "TaskCompletion"}},
    "OutputFileUploadConfiguration": {"uploadCondition": "TaskCompletion"},
}

_GROUP = "/subscriptions/{subscriptionId}/resourceGroups/{resourceGroupName}/providers/Microsoft.Compute"
_GALLERY_IMAGE = f"{_GROUP}/galleries/{{galleryName}}/images/{{galleryImageName}}"
# The patterns of strings, and the reasons of their errors.
FORMATS: Mapping[str, tuple[re.Pattern[str], str]] = {
    "id": (re.compile("[A-Za-z0-9_-]{1,64}"), "The value must be 1 to 64 letters, digits, hyphens and underscores"),
    "prefix": (re.compile("[A-Za-z0-9_-]{0,20}"), "The value must be at most 20 letters, digits, hyphens, underscores"),
    "mode": (re.compile("[0-7]{3,4}|"), "The value must be octal"),
    # The account has no subscription, but it is never this one.
    "subnet": (
        re.compile(
            "/subscriptions/(?!00000000-0000-0000-0000-000000000000/)[^/]+/resourceGroups/[^/]+/providers/"
            "Microsoft.(Classic)?Network/virtualNetworks/[^/]+/subnets/[^/]+",
            re.IGNORECASE,
        ),
        (
            "The specified subnetId is not the id of a subnet, or is in a different subscription and cannot be used "
            "with the current Batch account"
        ),
    ),
    "image": (
        re.compile(
            "/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft.Compute/"
            "(images/[^/]+|galleries/[^/]+/images/[^/]+(/versions/[^/]+)?)",
            re.IGNORECASE,
        ),
        (
            f"The specified resource id must be of the format {_GROUP}/images/{{imageName}}, "
            f"{_GALLERY_IMAGE}/versions/{{galleryImageVersionName}}, or {_GALLERY_IMAGE}"
        ),
    ),
}


class Property(NamedTuple):
    """A property of a type.

    Attributes:
        kind: string, int, bool, duration, any, secret, ignored, or the name of a type.
        values: The values of an enumeration by their lower case; otherwise empty.
        format: A key of FORMATS, or empty.
    """

    kind: str
    values: Mapping[str, str]
    format: str
    is_required: bool
    is_list: bool


def _parse(text: str) -> dict[str, Property]:
    pattern = re.compile(
        r"(?P<name>\w+)(?P<star>\*?)(?::(?P<kind>\w+)|=(?P<values>[\w|]+)|@(?P<format>\w+))?(?P<list>\[\])?"
    )
    found = {}
    for token in text.split():
        match = pattern.fullmatch(token)
        if not match:
            raise ValueError(token)
        values = {value.lower(): value for value in (match["values"] or "").split("|") if value}
        found[match["name"]] = Property(
            match["kind"] or "string", values, match["format"] or "", bool(match["star"]), bool(match["list"])
        )
    return found


# PUT takes a whole job, job schedule or Batch task, as GET returned it, and ignores what cannot change. Recorded with the id of
# a job: azure-sdk-for-js, sdk/batch/batch-rest/test/jobs.spec.ts.
_READ_ONLY = (
    "url eTag lastModified creationTime state stateTransitionTime previousState previousStateTransitionTime executionInfo "
    "nodeInfo stats"
)
_WHOLE = {"job_replacement": "job", "job_schedule_replacement": "job_schedule", "task_change": "task"}


def _type(name: str) -> Mapping[str, Property]:
    whole = _parse(f"{_TYPES[_WHOLE[name]]} {_READ_ONLY}") if name in _WHOLE else {}
    return dict.fromkeys(whole, Property("ignored", {}, "", is_required=False, is_list=False)) | _parse(_TYPES[name])


TYPES: Mapping[str, Mapping[str, Property]] = {name: _type(name) for name in _TYPES}
