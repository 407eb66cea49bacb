"""A page of Debian's Chromium."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager, suppress

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

# The pages poll the server every few seconds, and the first run starts three Python processes.
PAGE_TIMEOUT_MILLISECONDS = 120_000
SIGN_IN_TIMEOUT_MILLISECONDS = 30_000
MAX_SIGN_INS = 4


@contextmanager
def open_browser(*arguments):
    """Open a browser with command-line arguments, and yield a page of it.

    Each test has its own, because a running Playwright event loop disturbs other tests.
    """
    if CHROMIUM is None:
        # In CI, a skipped test would go unnoticed.
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing("there is no chromium here: apt-get install chromium")
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - not needed where these tests are skipped

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *arguments])
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        page.set_default_timeout(PAGE_TIMEOUT_MILLISECONDS)
        yield page
        browser.close()


def sign_in(page, up):
    """Paste the password that `make up` prints into the page that Prefect's UI opens first."""
    from playwright.sync_api import TimeoutError as NoAnswerError  # noqa: PLC0415 - as above

    page.goto(f"{up.pages_url}/v2/dashboard")
    for _ in range(MAX_SIGN_INS):
        page.locator("input[type=password]").fill(up.password)
        page.keyboard.press("Enter")
        # The page shows an error when the server is busy.
        with suppress(NoAnswerError):
            page.wait_for_url(
                lambda url: "/login" not in url, wait_until="commit", timeout=SIGN_IN_TIMEOUT_MILLISECONDS
            )
            return
    pytest.fail(f"Cannot sign in. The page shows:\n{page.locator('body').inner_text()}")
