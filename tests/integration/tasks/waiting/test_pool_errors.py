"""Errors of pools that the service reports in its own words."""

from __future__ import annotations

import json

from tests_support import polling_clock, wait_until

from tasks.model.verdict import Category, StoredResult

PROVIDER_ERROR = {
    "error": {"code": "BadRequest", "message": "The selected VM size cannot boot Hypervisor Generation '1'."}
}


def test_restarted_autoscale_counts_file(submitted, watch_chunk, counted, batch, run):
    chunk, job, containers = submitted([{"fault": "autoscale_fails", "times": 1}])
    wait_until(lambda: batch.get_pool(run.name).autoscale_problem, "the evaluation to fail")
    assert "insufficient sample data" in batch.get_pool(run.name).autoscale_problem.message

    batch.restart_autoscale(run.name)

    assert isinstance(counted(watch_chunk(chunk, job, containers, polling_clock()), job, containers), StoredResult)
    assert batch.get_pool(run.name).autoscale_problem is None


def test_error_of_provider_ends_wait_with_cause(submitted, watch_chunk, counted):
    values = {"Provider Error Json": json.dumps(PROVIDER_ERROR), "Provider Error Json Truncated": "False"}
    chunk, job, containers = submitted([{"fault": "allocation_fails", "values": values}])

    verdict = counted(watch_chunk(chunk, job, containers, polling_clock()), job, containers)

    assert verdict.category is Category.NODE
    assert "cannot boot Hypervisor Generation '1' [BadRequest]) [AllocationFailed]" in verdict.message
