"""`python -m flows.notices`: let the Prefect server tell of runs that fail or are late, and notice runs that died.

What it sets up is two automations, which stay on the server; done again, they are changed and not doubled.
"""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from urllib.parse import urlsplit

from prefect import get_client
from prefect.blocks.webhook import Webhook
from prefect.client.schemas.objects import StateType
from prefect.events.actions import CallWebhook, ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.settings import get_current_settings
from pydantic import SecretStr

from flows.console import say
from flows.servers.connect import prefect_api_url, require_reachable_prefect, use_up
from tasks.azure.settings import state_folder
from tasks.errors import ConfigurationError

URL_VARIABLE = "TOPN_NOTICE_URL"
WEBHOOK = "topn-notices"
NOTICES = "topn: tell of failed and late runs"
DEAD_RUNS = "topn: runs that died have crashed"

TOLD_STATES = ("Failed", "TimedOut", "Crashed", "Late")

# Heartbeats that may be lost before a run is taken for dead, at Prefect's frequency of 180 s: nine minutes.
LOST_HEARTBEATS = 3
HEARTBEAT_SECONDS = 180

# A run that fails again after this time is told again.
ONCE_SECONDS = 10

# Many services take a message in this form, among them Slack, Mattermost and Rocket.Chat.
PAYLOAD = (
    '{"text": {{ ("Run " ~ flow_run.name ~ " of " ~ flow.name ~ " is " ~ flow_run.state.name ~ ": "'
    ' ~ (flow_run.state.message or "no reason given") ~ " " ~ (flow_run | ui_url or "")) | tojson }}}'
)

EXIT_CONFIGURATION = 2


def main() -> int:
    """Set the automations up on the configured Prefect server, or that of `make up`; returns the exit status."""
    try:
        set_up(_webhook_url())
    except ConfigurationError as error:
        say(str(error))
        return EXIT_CONFIGURATION
    return 0


def set_up(webhook_url: str) -> None:
    """Create or change the automations.

    Raises:
        ConfigurationError: There is no Prefect server to do it on.
    """
    use_up(state_folder())
    if prefect_api_url() is None:
        raise ConfigurationError("No Prefect server is configured: set PREFECT_API_URL, or start one with `make up`.")
    require_reachable_prefect()
    block_id = Webhook(url=SecretStr(webhook_url)).save(WEBHOOK, overwrite=True)
    frequency_seconds = get_current_settings().flows.heartbeat_frequency or HEARTBEAT_SECONDS
    runs = {"prefect.resource.id": "prefect.flow-run.*"}
    flows = {"prefect.resource.role": "flow", "prefect.resource.name": ["topn", "sweep"]}
    _put(
        AutomationCore(
            name=NOTICES,
            trigger=EventTrigger(
                expect={f"prefect.flow-run.{state}" for state in TOLD_STATES},
                match=runs,
                match_related=flows,
                # The server may see an event twice; with a time, it acts once for each run and state.
                for_each={"prefect.resource.id", "prefect.state-name"},
                posture=Posture.Reactive,
                within=timedelta(seconds=ONCE_SECONDS),
            ),
            actions=[CallWebhook(block_document_id=block_id, payload=PAYLOAD)],
        )
    )
    _put(
        AutomationCore(
            name=DEAD_RUNS,
            trigger=EventTrigger(
                after={"prefect.flow-run.heartbeat"},
                expect={"prefect.flow-run.*"},
                match=runs,
                match_related=flows,
                for_each={"prefect.resource.id"},
                posture=Posture.Proactive,
                within=timedelta(seconds=LOST_HEARTBEATS * frequency_seconds),
            ),
            actions=[ChangeFlowRunState(state=StateType.CRASHED, message="It shows no sign of life any more.")],
        )
    )


def _put(automation: AutomationCore) -> None:
    with get_client(sync_client=True) as client:
        existing = client.read_automations_by_name(automation.name)
        for found in existing:
            client.update_automation(found.id, automation)
        if not existing:
            client.create_automation(automation)
    print(f"{'changed' if existing else 'created'}: {automation.name}")


def _webhook_url() -> str:
    """Read where notices go; not from an argument, since such an address is a secret.

    Raises:
        ConfigurationError: It is not set, or no address.
    """
    url = os.environ.get(URL_VARIABLE, "")
    if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname:
        raise ConfigurationError(f'Set {URL_VARIABLE} to the http or https address that takes {{"text": "…"}}.')
    return url


if __name__ == "__main__":
    sys.exit(main())
