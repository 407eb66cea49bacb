"""The address of the webhook for notices of failed runs."""

from __future__ import annotations

import pytest

from flows.notices import main


@pytest.mark.parametrize("url", ["", "hooks.example.com/x", "file:///etc/passwd"])
def test_webhook_address_must_be_url(topn, url):
    done = topn.call(main, TOPN_NOTICE_URL=url)
    assert done.returncode == 2
    assert done.stderr.startswith("Set `TOPN_NOTICE_URL` to the http or https URL")
