"""Request bodies of other clients, and invalid bodies."""

import contextlib
import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scheduler_bench import Bench

from localbatch.api import request_bodies
from localbatch.api.properties import read_body
from localbatch.errors import ServiceError
from localbatch.testing import MACHINE_JSON

CHORE = {
    "commandLine": "true",
    "environmentSettings": [{"name": "A", "value": "1"}],
    "resourceFiles": [{"httpUrl": "http://x/y", "filePath": "y", "fileMode": "0755"}],
}
COMMAND = CHORE | {
    "outputFiles": [
        {
            "filePattern": "*",
            "destination": {"container": {"containerUrl": "http://c", "path": "p"}},
            "uploadOptions": {"uploadCondition": "taskCompletion"},
        }
    ],
    "constraints": {"maxWallClockTime": "PT1H", "retentionTime": "P1D", "maxTaskRetryCount": 1},
}
POOL = {
    "id": "p",
    **MACHINE_JSON,
    "taskSlotsPerNode": 2,
    "resizeTimeout": "PT10M",
    "taskSchedulingPolicy": {"nodeFillType": "Pack"},
    "startTask": CHORE | {"waitForSuccess": True, "maxTaskRetryCount": 1},
    "userAccounts": [{"name": "u", "password": "secret"}],
    "metadata": [{"name": "a", "value": "1"}],
}
AUTO_POOL = {name: value for name, value in POOL.items() if name != "id"}
JOB = {
    "id": "j",
    "priority": 1,
    "poolInfo": {"autoPoolSpecification": {"poolLifetimeOption": "job", "autoPoolIdPrefix": "a", "pool": AUTO_POOL}},
    "jobManagerTask": COMMAND | {"id": "jm", "requiredSlots": 1, "runExclusive": True},
    "jobPreparationTask": CHORE | {"waitForSuccess": True},
    "jobReleaseTask": CHORE | {"maxWallClockTime": "PT1M"},
    "commonEnvironmentSettings": [{"name": "A", "value": "1"}],
    "constraints": {"maxWallClockTime": "PT1H", "maxTaskRetryCount": 1},
    "usesTaskDependencies": True,
    "onTaskFailure": "performExitOptionsJobAction",
}
OPTIONS = {"jobAction": "none", "dependencyAction": "satisfy"}
TASK = COMMAND | {
    "id": "t",
    "requiredSlots": 1,
    "affinityInfo": {"affinityId": "TVM:x"},
    "dependsOn": {"taskIds": ["a"], "taskIdRanges": [{"start": 1, "end": 2}]},
    "exitConditions": {
        "exitCodes": [{"code": 1, "exitOptions": OPTIONS}],
        "exitCodeRanges": [{"start": 2, "end": 3, "exitOptions": OPTIONS}],
        "default": OPTIONS,
    },
}


def make_job():
    return Bench().job(usesTaskDependencies=True, onTaskFailure="performexitoptionsjobaction")


def pool_spec(body):
    return request_bodies.pool_spec(read_body(body, "pool"))


def job_spec(body):
    return request_bodies.job_spec(read_body(body, "job"))


def empty_pool():
    return Bench().pool(0)


CHANGES = ("priority", "poolInfo", "constraints")
READERS = {
    "pool": (POOL, pool_spec),
    "patch": (
        AUTO_POOL,
        lambda body: request_bodies.pool_patch(read_body(body, "pool_patch"), empty_pool()),
    ),
    "job": (JOB, job_spec),
    "replacement": (
        {name: JOB[name] for name in CHANGES},
        lambda body: request_bodies.job_replacement(read_body(body, "job_replacement"), make_job()),
    ),
    "task": (TASK, lambda body: request_bodies.task_spec(read_body(body, "task"), make_job())),
}


def paths(value, path=()):
    """Every place in a body."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield (*path, key)
        yield from paths(child, (*path, key))


WRONG = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=3),
    st.booleans(),
    st.just([]),
    st.just({}),
    st.just([1]),
)


@pytest.mark.parametrize("name", READERS)
@given(data=st.data(), value=WRONG)
def test_any_body_is_read_or_refused(name, data, value):
    body, read = READERS[name]
    path = data.draw(st.sampled_from(list(paths(body))))
    body = copy.deepcopy(body)
    place = body
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with contextlib.suppress(ServiceError):
        read(body)


@pytest.mark.parametrize("name", ["pool", "job", "task"])
def test_full_body_is_read(name):
    body, read = READERS[name]
    assert read(copy.deepcopy(body)).items() >= {"metadata": body["metadata"]}.items() if name == "pool" else read(body)


def test_numbers_and_booleans_may_be_strings():
    spec = pool_spec(
        MACHINE_JSON
        | {"id": "p", "vmSize": "STANDARD_D2_V3", "taskSlotsPerNode": "4", "enableInterNodeCommunication": "True"}
    )
    assert (spec["vmSize"], spec["taskSlotsPerNode"], spec["enableInterNodeCommunication"]) == (
        "standard_d2_v3",
        4,
        True,
    )


def test_passwords_are_not_kept():
    assert "secret" not in str(pool_spec(POOL))
    assert "secret" not in str(job_spec(JOB))


def test_reading_is_idempotent():
    info = request_bodies.pool_info(read_body(JOB, "job"))
    assert request_bodies.pool_info({"poolInfo": info}) == info


# Recorded from the service, by the kind of the body: what is sent, and what the service returns for it.
# https://github.com/Azure/azure-sdk-for-python, sdk/batch/azure-batch/tests/recordings, and
# https://github.com/Azure/azure-cli, azure/cli/command_modules/batch/tests/latest/recordings.
NAT_POOL = {
    "name": "web",
    "protocol": "UDP",
    "backendPort": 8080,
    "frontendPortRangeStart": "15000",
    "frontendPortRangeEnd": 15100,
    "networkSecurityGroupRules": [{"priority": 150, "access": "Allow", "sourceAddressPrefix": "*"}],
}
NORMALIZED = [
    ("TaskSchedulingPolicy", {"nodeFillType": "pack"}, {"nodeFillType": "Pack", "jobDefaultOrder": "none"}),
    ("UserAccount", {"name": "u", "password": "p"}, {"name": "u", "elevationLevel": "nonadmin"}),
    (
        "OutputFileUploadConfiguration",
        {"uploadCondition": "taskcompletion"},
        {"uploadCondition": "TaskCompletion"},
    ),
    ("DataDisk", {"lun": 1, "diskSizeGB": 50}, {"lun": 1, "diskSizeGB": 50, "caching": "none"}),
    (
        "OSDisk",
        {"caching": "readwrite", "managedDisk": {"storageAccountType": "StandardSSD_LRS"}},
        {
            "caching": "ReadWrite",
            "managedDisk": {"storageAccountType": "standardssd_lrs"},
            "ephemeralOSDiskSettings": {},
        },
    ),
    (
        "NetworkConfiguration",
        {"endpointConfiguration": {"inboundNATPools": [NAT_POOL]}},
        {
            "dynamicVNetAssignmentScope": "none",
            "enableAcceleratedNetworking": False,
            "endpointConfiguration": {
                "inboundNATPools": [
                    NAT_POOL
                    | {
                        "protocol": "udp",
                        "frontendPortRangeStart": 15000,
                        "networkSecurityGroupRules": [
                            {
                                "priority": 150,
                                "access": "allow",
                                "sourceAddressPrefix": "*",
                                "sourcePortRanges": ["*"],
                            }
                        ],
                    }
                ]
            },
        },
    ),
    ("TaskContainerSettings", {"imageName": "i"}, {"imageName": "i", "workingDirectory": "taskWorkingDirectory"}),
    (
        "AzureBlobFileSystemConfiguration",
        {"accountName": "a", "containerName": "c", "relativeMountPath": "m", "accountKey": "k", "sasKey": "s"},
        {"accountName": "a", "containerName": "c", "relativeMountPath": "m"},
    ),
    ("RollingUpgradePolicy", {"pauseTimeBetweenBatches": "P0D"}, {"pauseTimeBetweenBatches": "P0D"}),
    ("CloudServiceConfiguration", {"osFamily": "5"}, {"osFamily": "5", "osVersion": "*"}),
    ("resize", {"resizeTimeout": "PT06M00S", "nodeDeallocationOption": None}, {"resizeTimeout": "PT6M"}),
]


@pytest.mark.parametrize(("kind", "sent", "returned"), NORMALIZED, ids=[kind for kind, _, _ in NORMALIZED])
def test_values_are_normalized(kind, sent, returned):
    assert read_body(sent, kind) == returned
    assert read_body(returned, kind) == returned


def test_disk_has_the_default_storage():
    machine = MACHINE_JSON["virtualMachineConfiguration"] | {"dataDisks": [{"lun": 1, "diskSizeGB": 50}]}
    spec = pool_spec({"id": "p", "vmSize": "standard_d2_v2", "virtualMachineConfiguration": machine})
    (disk,) = spec["virtualMachineConfiguration"]["dataDisks"]
    assert disk == {"lun": 1, "caching": "none", "diskSizeGB": 50, "storageAccountType": "standard_lrs"}


GROUP = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute"
AGENT = "batch.node.ubuntu 22.04"


@pytest.mark.parametrize(
    ("changes", "name", "reason"),
    [
        (
            {"imageReference": {"publisher": "a", "offer": "b", "sku": "c"}},
            "imageReference",
            "The specified imageReference with publisher a offer b sku c is not supported.",
        ),
        (
            {"imageReference": {"virtualMachineImageId": f"{GROUP}/images/i"}},
            "virtualMachineImageId",
            "providers/Microsoft.Compute/galleries/{galleryName}/images/{galleryImageName}/versions/",
        ),
        ({"nodeAgentSKUId": "batch.node.debian 12"}, "nodeAgentSKUId", "does not support the specified imageReference"),
        (
            {
                "imageReference": {"virtualMachineImageId": f"{GROUP}/galleries/g/images/i"},
                "nodeAgentSKUId": "nonsense",
            },
            "nodeAgentSKUId",
            "not supported",
        ),
    ],
)
def test_machine_that_is_not_supported_is_refused(changes, name, reason):
    machine = MACHINE_JSON["virtualMachineConfiguration"] | changes
    with pytest.raises(ServiceError) as caught:
        pool_spec({"id": "p", "vmSize": "standard_d2s_v3", "virtualMachineConfiguration": machine})
    assert (caught.value.code, caught.value.values["PropertyName"]) == ("InvalidPropertyValue", name)
    assert reason in caught.value.values["Reason"]


@pytest.mark.parametrize("image_id", ["galleries/g/images/i", "galleries/g/images/i/versions/1.0.0"])
def test_own_image_is_accepted(image_id):
    machine = {"imageReference": {"virtualMachineImageId": f"{GROUP}/{image_id}"}, "nodeAgentSKUId": AGENT}
    assert pool_spec({"id": "p", "vmSize": "standard_d2s_v3", "virtualMachineConfiguration": machine})


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"commandLine": 5}, "Cannot convert a primitive value to the expected type 'Edm.String'."),
        ({"requiredSlots": "two"}, "Cannot convert a primitive value to the expected type 'Edm.Int32'."),
        ({"constraints": 5}, "A 'StartObject' node was expected."),
        ({"resourceFiles": {}}, "A 'StartArray' node was expected."),
        (
            {"userIdentity": {"autoUser": {"level": "admin"}}},
            (
                "The property 'level' does not exist on type "
                "'Microsoft.Azure.Batch.Protocol.Entities.AutoUserSpecification'. "
                "Make sure to only use property names that are defined by the type."
            ),
        ),
    ],
)
def test_malformed_values_have_the_reason(value, reason):
    with pytest.raises(ServiceError) as caught:
        read_body(TASK | value, "task")
    assert caught.value.code == "InvalidRequestBody"
    assert reason in caught.value.values["Reason"]
