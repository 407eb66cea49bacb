"""The handlers of the operations on pools and on the account.

https://learn.microsoft.com/rest/api/batchservice/pools
"""

from __future__ import annotations

from datetime import timedelta

from starlette.responses import Response

from localbatch import errors
from localbatch.account.images import IMAGES
from localbatch.account.records import Pool
from localbatch.account.specs import Json, merge
from localbatch.api import odata, request_bodies, response_bodies
from localbatch.api.paging import listing
from localbatch.api.properties import invalid
from localbatch.api.requests import Call
from localbatch.api.responses import done, json_answer, one
from localbatch.rules import autoscale
from localbatch.rules.creation import new_pool

DEFAULT_RESIZE_TIMEOUT = "PT15M"
# https://learn.microsoft.com/rest/api/batchservice/pools/remove-nodes
MAX_NODES_REMOVED = 100
# https://learn.microsoft.com/rest/api/batchservice/pools/enable-pool-auto-scale: between two requests for one pool.
MIN_ENABLE_INTERVAL = timedelta(seconds=30)

# From this version on, nodes have no endpoint for SSH by default: https://github.com/Azure/Batch/issues/182
FIRST_VERSION_WITHOUT_SSH = "2024-07-01"


def create_pool(call: Call) -> Response:
    """POST /pools."""
    body, now = call.json("pool"), call.now
    spec = request_bodies.pool_spec(body)
    if spec["enableAutoScale"]:
        check_formula(spec["autoScaleFormula"])
    pool = new_pool(call.store, body["id"], spec, request_bodies.targets(body, 0, 0), now)
    pool.has_ssh = call.query["api-version"] < FIRST_VERSION_WITHOUT_SSH
    call.store.add_pool(pool)
    if spec["enableAutoScale"]:
        call.scheduler.pools.enable_autoscale(pool, now)
    return done(201, pool, call.url(pool))


def list_pools(call: Call) -> Response:
    """GET /pools."""
    return listing(
        call, "pools", call.store.pools, odata.POOLS, lambda pool: response_bodies.pool_json(pool, call.base)
    )


def delete_pool(call: Call) -> Response:
    """DELETE /pools/{pool_id}."""
    call.scheduler.pools.delete(call.live_pool(), call.now)
    return done(202)


def pool_exists(call: Call) -> Response:
    """HEAD /pools/{pool_id}."""
    return done(200, call.pool())


def get_pool(call: Call) -> Response:
    """GET /pools/{pool_id}."""
    pool = call.pool()
    return one(call, "pools", response_bodies.pool_json(pool, call.base), pool)


def update_pool(call: Call) -> Response:
    """PATCH /pools/{pool_id}."""
    pool = call.live_pool()
    return _changed(call, pool, request_bodies.pool_patch(call.json("pool_patch"), pool), 200)


def replace_pool_properties(call: Call) -> Response:
    """POST /pools/{pool_id}/updateproperties."""
    pool = call.live_pool()
    return _changed(call, pool, request_bodies.pool_replacement(call.json("pool_properties")), 204, "/updateproperties")


def _changed(call: Call, pool: Pool, changes: Json, status: int, action: str = "") -> Response:
    pool.spec = merge(pool.spec, changes)
    call.scheduler.agenda.touch(pool, call.now)
    return done(status, pool, call.url(pool, action))


def disable_pool_auto_scale(call: Call) -> Response:
    """POST /pools/{pool_id}/disableautoscale."""
    pool = call.live_pool()
    call.scheduler.pools.disable_autoscale(pool, call.now)
    return done(200, pool, call.url(pool, "/disableautoscale"))


def enable_pool_auto_scale(call: Call) -> Response:
    """POST /pools/{pool_id}/enableautoscale."""
    pool, body = call.live_pool(), call.json("enable_autoscale")
    # A pool must be steady before its size changes hands.
    if pool.allocation.state != "steady":
        raise errors.pool_being_resized()
    formula = body.get("autoScaleFormula") or pool.spec.get("autoScaleFormula")
    if not formula:
        raise errors.missing_required_property(PropertyName="autoScaleFormula")
    check_formula(formula)
    # Formula and interval of the last time apply again if the request has none.
    interval = request_bodies.autoscale_interval(body, pool.spec.get("autoScaleEvaluationInterval", "PT15M"))
    if pool.autoscale_enabled_at and call.now < pool.autoscale_enabled_at + MIN_ENABLE_INTERVAL:
        raise errors.too_many_enable_auto_scale_requests()
    pool.autoscale_enabled_at = call.now
    pool.spec |= {"autoScaleFormula": formula, "autoScaleEvaluationInterval": interval}
    call.scheduler.pools.enable_autoscale(pool, call.now)
    return done(200, pool, call.url(pool, "/enableautoscale"))


def evaluate_pool_auto_scale(call: Call) -> Response:
    """POST /pools/{pool_id}/evaluateautoscale."""
    pool, formula = call.live_pool(), call.json("evaluate_autoscale")["autoScaleFormula"]
    if not pool.spec["enableAutoScale"]:
        raise errors.operation_invalid_for_current_state(Reason="Autoscale is not enabled on the pool")
    # The evaluation has no effect on the pool: it shows what the formula would do.
    _, run = call.scheduler.pools.evaluate(pool, formula, call.now)
    answer = json_answer(call, "Microsoft.Azure.Batch.Protocol.Entities.AutoScaleRun", run)
    answer.headers["DataServiceId"] = call.url(pool, "/evaluateautoscale")
    return answer


def check_formula(formula: str) -> None:
    """Check the syntax of an autoscale formula.

    Raises:
        ServiceError: The formula is invalid.
    """
    try:
        autoscale.check(formula)
    except autoscale.FormulaError as error:
        raise errors.formula_refused(error.code, error.message) from error


def _steady_pool(call: Call) -> Pool:
    pool = call.live_pool()
    if pool.allocation.state != "steady":
        raise errors.pool_being_resized()
    return pool


def resize_pool(call: Call) -> Response:
    """POST /pools/{pool_id}/resize."""
    pool, body = _steady_pool(call), call.json("resize")
    if pool.spec["enableAutoScale"]:
        raise errors.operation_invalid_for_current_state(Reason="Autoscale is enabled on the pool")
    request_bodies.check_resize_timeout(body)
    dedicated, low_priority = request_bodies.targets(body, pool.target_dedicated, pool.target_low_priority)
    option = body.get("nodeDeallocationOption", "requeue")
    pool.spec["resizeTimeout"] = body.get("resizeTimeout", DEFAULT_RESIZE_TIMEOUT)
    call.scheduler.pools.resize(pool, dedicated, low_priority, option, call.now)
    return done(202, pool, call.url(pool, "/resize"))


def stop_pool_resize(call: Call) -> Response:
    """POST /pools/{pool_id}/stopresize."""
    pool = call.live_pool()
    call.scheduler.pools.stop_resize(pool, call.now)
    return done(202, pool, call.url(pool, "/stopresize"))


def remove_nodes(call: Call) -> Response:
    """POST /pools/{pool_id}/removenodes."""
    pool, body = _steady_pool(call), call.json("remove_nodes")
    # A node that is listed twice is removed once.
    ids = dict.fromkeys(node_id.lower() for node_id in body["nodeList"])
    if not 1 <= len(ids) <= MAX_NODES_REMOVED:
        raise invalid("nodeList", len(ids), f"A request removes 1 to {MAX_NODES_REMOVED} nodes")
    request_bodies.check_resize_timeout(body)
    # Check all ids first, so that an unknown node removes no other.
    nodes = [call.store.node(pool.id, node_id) for node_id in ids]
    option = body.get("nodeDeallocationOption", "requeue")
    pool.spec["resizeTimeout"] = body.get("resizeTimeout", DEFAULT_RESIZE_TIMEOUT)
    call.scheduler.pools.remove_nodes(pool, nodes, option, call.now)
    return done(202, pool, call.url(pool, "/removenodes"))


def list_supported_images(call: Call) -> Response:
    """GET /supportedimages."""
    return listing(call, "supportedimages", IMAGES, odata.IMAGES, lambda image: image)


def list_pool_node_counts(call: Call) -> Response:
    """GET /nodecounts."""
    return listing(call, "poolnodecounts", call.store.pools, odata.NODE_COUNTS, response_bodies.node_counts_json)


def list_pool_usage_metrics(call: Call) -> Response:
    """GET /poolusagemetrics. There are none: nothing is measured or billed."""
    nothing: dict[str, Json] = {}
    return listing(call, "poolusagemetrics", nothing, odata.NODE_COUNTS, lambda metrics: metrics)


def list_applications(call: Call) -> Response:
    """GET /applications. The account has none."""
    nothing: dict[str, Json] = {}
    # https://github.com/Azure/azure-sdk-for-python, sdk/batch/azure-batch/tests/recordings, test_batch_applications
    return listing(call, "listapplicationsummariesresponses", nothing, {}, lambda application: application)


def get_application(_call: Call) -> Response:
    """GET /applications/{application_id}."""
    raise errors.application_not_found()
