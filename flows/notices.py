"""Create the automations that notify a webhook of failed and late runs, and set dead runs to Crashed.

`python -m flows.notices` creates two automations on the Prefect server, or updates them if they exist.
`prefect automation create --from-file` could not do that: it always creates another automation, and its file must
contain the id of the webhook block, which the server assigns.
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

from flows.console import print_message, print_result, protected_output
from flows.servers.connect import (
    prefect_api_url,
    prepare_environment,
    require_reachable_prefect,
    use_make_up_servers,
)
from tasks.azure.settings import state_folder
from tasks.errors import ConfigurationError

URL_VARIABLE = "TOPN_NOTICE_URL"
WEBHOOK_BLOCK = "topn-notices"
NOTICES_AUTOMATION = "topn: tell of failed and late runs"
DEAD_RUNS_AUTOMATION = "topn: runs that died have crashed"

NOTIFIED_STATES = ("Failed", "TimedOut", "Crashed", "Late")

# A run is dead after this many missing heartbeats: nine minutes at the default frequency.
MAX_LOST_HEARTBEATS = 3
DEFAULT_HEARTBEAT_SECONDS = 180

# A run that enters the same state again within this time is not reported again.
MIN_REPEAT_SECONDS = 10

# Slack, Mattermost, Rocket.Chat and others accept this format. Without the replacements, a text such as `<!channel>` in a
# file name would notify everyone. Source: https://docs.slack.dev/messaging/formatting-message-text#escaping
PAYLOAD = (
    '{"text": {{ ("Run " ~ flow_run.name ~ " of " ~ flow.name ~ " is " ~ flow_run.state.name ~ ": "'
    ' ~ (flow_run.state.message or "no reason given") ~ " " ~ (flow_run | ui_url or ""))'
    ' | replace("&", "&amp;") | replace("<", "&lt;") | replace(">", "&gt;") | tojson }}}'
)

EXIT_CONFIGURATION = 2


def main() -> int:
    """Set up the automations on the configured Prefect server, or that of `make up`. Return the exit code."""
    try:
        prepare_environment()
        set_up(_webhook_url())
    except ConfigurationError as error:
        print_message(str(error))
        return EXIT_CONFIGURATION
    return 0


def set_up(webhook_url: str) -> None:
    """Create or update the automations and the webhook block.

    Raises:
        ConfigurationError: No Prefect server is configured, or it does not respond.
    """
    use_make_up_servers(state_folder())
    if prefect_api_url() is None:
        raise ConfigurationError("No Prefect server is configured. Set `PREFECT_API_URL`, or start one with `make up`.")
    require_reachable_prefect()
    block_id = Webhook(url=SecretStr(webhook_url)).save(WEBHOOK_BLOCK, overwrite=True)
    frequency_seconds = get_current_settings().flows.heartbeat_frequency or DEFAULT_HEARTBEAT_SECONDS
    runs = {"prefect.resource.id": "prefect.flow-run.*"}
    flows = {"prefect.resource.role": "flow", "prefect.resource.name": ["topn", "sweep"]}
    _create_or_update(
        AutomationCore(
            name=NOTICES_AUTOMATION,
            trigger=EventTrigger(
                expect={f"prefect.flow-run.{state}" for state in NOTIFIED_STATES},
                match=runs,
                match_related=flows,
                # The server may process an event twice. With `within`, it acts once per run and state.
                for_each={"prefect.resource.id", "prefect.state-name"},
                posture=Posture.Reactive,
                within=timedelta(seconds=MIN_REPEAT_SECONDS),
            ),
            actions=[CallWebhook(block_document_id=block_id, payload=PAYLOAD)],
        )
    )
    _create_or_update(
        AutomationCore(
            name=DEAD_RUNS_AUTOMATION,
            trigger=EventTrigger(
                after={"prefect.flow-run.heartbeat"},
                expect={"prefect.flow-run.*"},
                match=runs,
                match_related=flows,
                for_each={"prefect.resource.id"},
                posture=Posture.Proactive,
                within=timedelta(seconds=MAX_LOST_HEARTBEATS * frequency_seconds),
            ),
            actions=[ChangeFlowRunState(state=StateType.CRASHED, message="The run stopped sending heartbeats.")],
        )
    )


def _create_or_update(automation: AutomationCore) -> None:
    with get_client(sync_client=True) as client:
        existing = client.read_automations_by_name(automation.name)
        for found in existing:
            client.update_automation(found.id, automation)
        if not existing:
            client.create_automation(automation)
    print_result(f"{'updated' if existing else 'created'}: {automation.name}")


def _webhook_url() -> str:
    """Read the URL of the webhook that receives notices.

    The URL is a secret, and therefore not a command-line argument.

    Raises:
        ConfigurationError: The variable is not set, or its value is not an http or https URL.
    """
    url = os.environ.get(URL_VARIABLE, "")
    if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname:
        raise ConfigurationError(f'Set `{URL_VARIABLE}` to the http or https URL of a webhook for {{"text": "…"}}.')
    return url


if __name__ == "__main__":
    with protected_output():
        sys.exit(main())
