"""Core quotas and spot nodes: how many of the requested nodes a pool gets."""

import dataclasses
import json

import pytest
from scheduler_bench import Bench

from localbatch.account.store import key_of
from localbatch.account.vm_sizes import architecture_of, cores_of, family_of, generations_of


@pytest.fixture
def bench():
    return Bench()


def count(pool):
    return pool.count_nodes(dedicated=True), pool.count_nodes(dedicated=False)


def errors_of(pool):
    return [error["code"] for error in pool.resize_errors]


def test_core_quota_limits_a_pool(bench):
    bench.store.core_quotas = {True: 10, False: 3}
    pool = bench.pool(3, vmSize="standard_d4_v3")
    bench.scheduler.pools.resize(pool, 3, 1, "requeue", bench.now)
    bench.tick()
    assert (pool.allocation.state, count(pool)) == ("steady", (2, 0))
    assert errors_of(pool) == ["AccountCoreQuotaReached", "AccountLowPriorityCoreQuotaReached"]
    assert (pool.target_dedicated, pool.target_low_priority) == (3, 1)


def test_core_quota_covers_all_pools(bench):
    bench.store.core_quotas = {True: 4, False: 2}
    first = bench.pool(1, id="first", vmSize="standard_d2s_v5")
    second = bench.pool(2, id="second", vmSize="standard_d2s_v5")
    bench.tick()
    assert (errors_of(first), errors_of(second), count(second)) == ([], ["AccountCoreQuotaReached"], (1, 0))
    bench.scheduler.pools.resize(first, 0, 0, "requeue", bench.now)
    bench.tick()
    bench.scheduler.pools.resize(second, 2, 1, "requeue", bench.now)
    bench.tick()
    assert (errors_of(second), count(second)) == ([], (2, 1))


def test_family_quota_limits_dedicated_nodes_of_family(bench):
    bench.store.core_quotas = {True: 8, False: None}
    bench.store.family_core_quotas = {"standardDASv5Family": 4}
    first = bench.pool(3, id="first", vmSize="standard_d2as_v5")
    second = bench.pool(5, id="second", vmSize="standard_d2s_v3")
    first.target_low_priority = 4
    bench.tick()
    assert (count(first), count(second)) == ((2, 4), (2, 0))
    message = "The specified account has reached VM series core quota for standardDASv5Family"
    assert first.resize_errors == [{"code": "AccountVMSeriesCoreQuotaReached", "message": message}]
    assert errors_of(second) == ["AccountCoreQuotaReached"]


def machine(offer, sku, publisher="canonical"):
    reference = {"publisher": publisher, "offer": offer, "sku": sku, "version": "latest"}
    agent = "batch.node.ubuntu 24.04-arm64" if "arm64" in sku else "batch.node.ubuntu 24.04"
    return {"virtualMachineConfiguration": {"imageReference": reference, "nodeAgentSKUId": agent}}


@pytest.mark.parametrize(
    ("vm_size", "sku", "cause"),
    [
        ("standard_d2s_v3", "server-arm64", "only supports a CPU Architecture of 'x64'"),
        ("standard_d2ps_v6", "server", "only supports a CPU Architecture of 'Arm64'"),
        ("standard_d2as_v6", "server-gen1", "'standard_d2as_v6' cannot boot Hypervisor Generation '1'"),
        ("standard_d2_v3", "Server", "'standard_d2_v3' cannot boot Hypervisor Generation '2'"),
    ],
)
def test_image_that_cannot_boot_fails_allocation(bench, vm_size, sku, cause):
    pool = bench.pool(1, vmSize=vm_size, **machine("ubuntu-24_04-lts", sku))
    pool.target_low_priority = 1
    bench.tick()
    assert (pool.allocation.state, count(pool)) == ("steady", (0, 0))
    assert [(error["code"], error["message"]) for error in pool.resize_errors] == [
        ("AllocationFailed", "Desired number of dedicated nodes could not be allocated"),
        ("AllocationFailed", "Desired number of low priority nodes could not be allocated"),
    ]
    values = {pair["name"]: pair["value"] for pair in pool.resize_errors[0]["values"]}
    assert values["Provider Error Json Truncated"] == "False"
    error = json.loads(values["Provider Error Json"])["error"]
    assert (error["code"], cause in error["message"]) == ("BadRequest", True)


@pytest.mark.parametrize(
    ("vm_size", "sku"),
    [
        ("standard_d2s_v3", "server"),
        ("standard_d2s_v3", "server-gen1"),
        ("standard_d2_v3", "server-gen1"),
        ("standard_d2as_v6", "server"),
        ("standard_d2ps_v5", "server-arm64"),
        ("standard_np10s", "server"),
    ],
)
def test_image_that_boots_is_allocated(bench, vm_size, sku):
    pool = bench.pool(1, vmSize=vm_size, **machine("ubuntu-24_04-lts", sku))
    bench.tick()
    assert (count(pool), pool.resize_errors) == ((1, 0), [])


def test_shrinking_ignores_the_core_quota(bench):
    pool = bench.pool(3)
    bench.tick()
    bench.store.core_quotas = {True: 0, False: 0}
    bench.scheduler.pools.resize(pool, 1, 0, "requeue", bench.now)
    bench.tick()
    assert (pool.allocation.state, count(pool), errors_of(pool)) == ("steady", (1, 0), [])


@pytest.mark.parametrize(
    ("vm_size", "cores"),
    [
        ("STANDARD_D2_V3", 2),
        ("standard_d2_v2", 2),
        ("standard_d3_v2", 4),
        ("standard_ds14", 16),
        ("standard_d16ads_v5", 16),
        ("standard_a1_v2", 1),
        ("standard_f72s_v2", 72),
        ("standard_m8-2ms", 2),
        ("standard_nc24ads_a100_v4", 24),
        ("basic_a3", 3),
        ("x", 1),
    ],
)
def test_vm_size_name_has_the_cores(vm_size, cores):
    assert cores_of(vm_size) == cores


SPOT = """
$TargetLowPriorityNodes = 2;
$TargetDedicatedNodes = $PreemptedNodeCount;
"""


def test_formula_replaces_preempted_spot_nodes(bench):
    pool = bench.pool(enableAutoScale=True, autoScaleFormula=SPOT, autoScaleEvaluationInterval="PT5M")
    bench.scheduler.agenda.pace = dataclasses.replace(bench.scheduler.agenda.pace, preempted=600)
    bench.tick()
    assert count(pool) == (0, 2)
    job = bench.job()
    task = bench.task(job, "t")
    bench.tick()
    lost = task.node
    bench.scheduler.nodes.preempt(bench.store.node("pool", lost.id), bench.now)
    bench.tick()
    # Its Batch task runs on the other, and that counts as no retry.
    assert (task.state, task.node is lost, task.execution.requeue_count) == ("running", False, 1)
    assert (task.execution.retry_count, lost.state, count(pool)) == (0, "preempted", (0, 2))
    bench.tick(minutes=5)
    assert count(pool) == (1, 2)
    bench.tick(minutes=5)
    assert (lost.state, key_of(lost.id) in pool.nodes) == ("idle", True)
    bench.tick(minutes=5)
    assert count(pool) == (0, 2)


@pytest.mark.parametrize(
    ("vm_size", "family"),
    [
        ("Standard_D2as_v5", "standardDASv5Family"),
        ("standard_d2s_v3", "standardDSv3Family"),
        ("standard_d2_v3", "standardDv3Family"),
        ("standard_ds3_v2", "standardDSv2Family"),
        ("standard_f4s_v2", "standardFSv2Family"),
        ("standard_e4-2ds_v5", "standardEDSv5Family"),
        ("standard_b2ms", "standardBSFamily"),
        ("standard_d2ads_v6", "standardDadv6Family"),
        ("standard_d2ds_v6", "StandardDdsv6Family"),
        ("standard_nc24ads_a100_v4", "StandardNCADSA100v4Family"),
        ("x", ""),
    ],
)
def test_vm_size_name_has_the_family(vm_size, family):
    assert family_of(vm_size) == family.lower()


@pytest.mark.parametrize(
    ("vm_size", "architecture", "generations"),
    [
        ("standard_d2s_v3", "x64", (1, 2)),
        ("standard_d2_v3", "x64", (1,)),
        ("standard_a1_v2", "x64", (1,)),
        ("standard_ds3_v2", "x64", (1, 2)),
        ("standard_d2_v4", "x64", (1, 2)),
        ("standard_d2as_v6", "x64", (2,)),
        ("Standard_D2ps_v5", "Arm64", (2,)),
        ("standard_e2pds_v6", "Arm64", (2,)),
        ("standard_np10s", "x64", (1, 2)),
        ("standard_nc24ads_a100_v4", "x64", (1, 2)),
        ("x", None, (1, 2)),
    ],
)
def test_vm_size_name_has_what_it_boots(vm_size, architecture, generations):
    assert (architecture_of(vm_size), generations_of(vm_size)) == (architecture, generations)
