"""Events of runs on the Prefect server, on which automations can act.

Prefect sends an event in the background, and a process waits at its exit until its events are sent. An event that cannot be
sent causes a warning in the log, and the run continues.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from prefect.client.schemas.objects import FlowRun
from prefect.events import emit_event

from tasks.model.cleanup import MAX_LISTED, Cleanup
from tasks.report.model import RunReport
from tasks.text import shorten

RUN_COMPLETED = "topn.run.completed"
FILES_FAILED = "topn.files.failed"
CLEANUP_INCOMPLETE = "topn.cleanup.incomplete"

MAX_TEXT = 300

logger = logging.getLogger(__name__)


def emit_end(flow_run_id: str, report: RunReport, usd: tuple[float, float] | None) -> None:
    """Emit an event for the end of a run: that it completed, or that files failed, or the corpus."""
    failures = [
        {"file": shorten(failure.name, MAX_TEXT), "reason": shorten(failure.message, MAX_TEXT)}
        for failure in report.describe_failures(MAX_LISTED)
    ]
    payload = {
        "workload": report.workload.name,
        "files": {status: report.count(status) for status in report.status_words},
        "output_folder": report.output_folder,
        "usd": usd,
        **({"failures": failures} if failures else {}),
    }
    event = FILES_FAILED if report.is_failed else RUN_COMPLETED
    _emit(event, _resource(flow_run_id, report.run_name), [], payload)


def emit_incomplete_cleanup(flow_run: FlowRun, cleanup: Cleanup) -> None:
    """Emit an event for what the cleanup of a run did not delete."""
    # Outside the process of the run, Prefect does not add these. The action of an automation finds the deployment by them.
    related = [{"prefect.resource.id": f"prefect.flow-run.{flow_run.id}", "prefect.resource.role": "flow-run"}]
    if flow_run.deployment_id is not None:
        deployment = f"prefect.deployment.{flow_run.deployment_id}"
        related.append({"prefect.resource.id": deployment, "prefect.resource.role": "deployment"})
    remaining = [
        {"name": name, "reason": shorten(reason, MAX_TEXT)}
        for name, reason in list(cleanup.remaining.items())[:MAX_LISTED]
    ]
    payload = {"deleted": len(cleanup.deleted), "not_deleted": len(cleanup.remaining), "remaining": remaining}
    _emit(CLEANUP_INCOMPLETE, _resource(str(flow_run.id), flow_run.name), related, payload)


def _resource(flow_run_id: str, name: str) -> dict[str, str]:
    return {"prefect.resource.id": f"topn.run.{flow_run_id}", "prefect.resource.name": name}


def _emit(event: str, resource: dict[str, str], related: list[dict[str, str]], payload: Mapping[str, Any]) -> None:
    try:
        emit_event(event, resource, related=related, payload=dict(payload))
    except Exception as error:  # noqa: BLE001 - no event may fail a run
        logger.warning("The event %s could not be sent: %s", event, error)
