"""Notices of failed and late runs reach a webhook."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests_support import wait_until
from topn_support import process_environment
from webhook_support import listening_webhook

from tasks.errors import ConfigurationError


@pytest.fixture
def webhook():
    with listening_webhook() as server:
        yield server


@pytest.fixture
def client(prefect_api):
    from prefect import get_client  # noqa: PLC0415 - takes seconds
    from prefect.settings import PREFECT_API_URL, temporary_settings  # noqa: PLC0415 - as above

    with temporary_settings({PREFECT_API_URL: prefect_api}), get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def set_up(topn, client):
    """Return a function that calls the command; the automations that it creates are deleted afterwards."""

    def call(**variables):
        from flows.notices import main  # noqa: PLC0415 - takes seconds

        return topn.call(main, **variables)

    yield call
    for automation in client.read_automations():
        client.delete_automation(automation.id)


def test_webhook_is_notified_of_failed_and_late_runs(set_up, webhook, client, prefect_api):
    from prefect.states import Late  # noqa: PLC0415 - takes seconds

    from flows.topn import topn as flow  # noqa: PLC0415 - as above

    assert "created" in set_up(TOPN_NOTICE_URL=webhook.url).stdout
    again = set_up(TOPN_NOTICE_URL=webhook.url)
    assert again.stdout.count("updated") == 2, again.stderr
    assert webhook.url not in again.stdout + again.stderr
    waits = {automation.name: automation.trigger.within for automation in client.read_automations()}
    assert waits["topn: runs that died have crashed"] == timedelta(minutes=9)

    with process_environment(PREFECT_API_URL=prefect_api), pytest.raises(ConfigurationError):
        flow()
    wait_until(lambda: webhook.texts, "the notice of the failed run")
    run = client.create_flow_run(flow, name="tonight")
    client.set_flow_run_state(run.id, Late(message='It says "when"? <!channel> & more'), force=True)
    wait_until(lambda: any("tonight" in text for text in webhook.texts), "the notice of the late run")

    # Runs of other tests can become late on the shared server.
    failed, late = [text for text in webhook.texts if " is Failed: " in text or "Run tonight " in text]
    assert " of topn is Failed: " in failed
    assert "No Azure is configured" in failed
    assert 'Run tonight of topn is Late: It says "when"? &lt;!channel&gt; &amp; more' in late
