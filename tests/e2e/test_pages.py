"""Prefect's pages under `make up`, used in a real browser."""

from __future__ import annotations

import json
import os
import shutil
import urllib.request
from pathlib import Path

import pytest
from tests_support import wait_until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("up"),
]

# The pages poll the server every few seconds, and the first run starts three Python processes.
PAGE_TIMEOUT_MILLISECONDS = 120_000

# A click that the page handles sends a request at once.
CLICK_TIMEOUT_MILLISECONDS = 10_000


@pytest.fixture
def page():
    """A page of Debian's Chromium.

    Each test has its own, because a running Playwright event loop disturbs other tests.
    """
    if CHROMIUM is None:
        # In CI, a skipped test would go unnoticed.
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing("there is no chromium here: apt-get install chromium")
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - not needed where these tests are skipped

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        page.set_default_timeout(PAGE_TIMEOUT_MILLISECONDS)
        yield page
        browser.close()


@pytest.fixture
def screenshot(page, request):
    """Return a function that saves a screenshot in the folder `SCREENSHOTS`, if that is set."""
    folder = os.environ.get("SCREENSHOTS")

    def take(name):
        if folder:
            page.screenshot(path=f"{folder}/{name}.png")

    return take


@pytest.fixture
def open_form(up, page):
    """Return a function that opens the form of `topn/default`, as the button "Run" does."""

    def do():
        [deployment] = up.post("/deployments/filter", flows={"name": {"any_": ["topn"]}})
        page.goto(f"{up.pages_url}/v2/deployments/deployment/{deployment['id']}/run", wait_until="domcontentloaded")
        page.get_by_label("num_words").wait_for()

    return do


@pytest.fixture
def endless_tasks(up):
    """Make the Batch tasks of the local Azure run forever."""
    variables = json.loads((up.state_folder / "up.json").read_text())
    faults = f"{variables['TOPN_BATCH_ENDPOINT']}/_internal/faults"
    body = json.dumps({"fault": "endless_task", "task": "*"}).encode()
    urllib.request.urlopen(faults, body).close()
    yield
    urllib.request.urlopen(urllib.request.Request(faults, method="DELETE")).close()


def text_file():
    Path("a.txt").write_text(f"one two two {os.getcwd()}")
    return os.path.abspath("a.txt")


def shows(page, text):
    page.get_by_text(text, exact=True).first.wait_for()


def submit(page):
    """Click the submit button; retry clicks that get lost while the page is loading."""
    from playwright.sync_api import TimeoutError as NoAnswerError  # noqa: PLC0415 - not needed where this is skipped

    for _ in range(10):
        try:
            with page.expect_response("**/ui/schemas/validate", timeout=CLICK_TIMEOUT_MILLISECONDS):
                page.get_by_role("button", name="Submit").click()
        except NoAnswerError:
            continue
        return


def test_form_starts_run_and_page_shows_steps(up, page, open_form, screenshot):
    before = up.runs()
    open_form()
    for words in ("Text files, or patterns", "Number of words per file.", "neither changes nor"):
        page.get_by_text(words).first.wait_for()
    screenshot("form")
    page.locator("textarea").first.fill(text_file())
    page.get_by_label("num_words").fill("2")
    page.get_by_label("output_folder").fill(os.path.abspath("results"))
    submit(page)
    page.wait_for_url(lambda url: not url.endswith("/run"), wait_until="commit")
    wait_until(lambda: len(up.runs()) == len(before) + 1, "the run exists")

    page.goto(f"{up.pages_url}/v2/runs/flow-run/{up.runs()[0]}", wait_until="domcontentloaded")
    shows(page, "Completed")
    page.get_by_role("tab", name="Task Runs").click()
    for step in ("start", "plan", "create pool", "stage 1 of 1", "submit 1 of 1", "collect 1 of 1", "report"):
        shows(page, step)
    screenshot("task-runs")
    page.get_by_role("tab", name="Artifacts").click()
    shows(page, "topn-cleanup")
    screenshot("artifacts")
    found = json.loads(Path("results/a_OUTPUT.json").read_text())
    assert found["top"][0] == ["two", 2]
    assert len(found["top"]) == 2


def test_form_rejects_bad_number_without_creating_run(up, page, open_form, screenshot):
    before = up.runs()
    open_form()
    field = page.get_by_label("num_words")
    field.fill("0")
    page.get_by_role("button", name="Submit").click()
    assert field.evaluate("field => field.validationMessage") == "Value must be greater than or equal to 1."
    screenshot("refused-by-the-form")
    assert up.runs() == before


def test_form_shows_rejection_by_server(up, page, open_form, screenshot):
    before = up.runs()
    open_form()
    # The form asks whether the pool id is a text or empty.
    page.get_by_text("str", exact=True).first.click()
    page.locator("textarea").nth(3).fill("no id!")
    submit(page)
    shows(page, "'no id!' is not valid under any of the given schemas")
    page.get_by_text("Id of an existing pool").first.wait_for()
    screenshot("refused-by-the-server")
    assert up.runs() == before


def test_cancelling_run_from_page_leaves_no_resources(up, endless_tasks, page, screenshot):
    flow_run_id = up.create_run(inputs=[text_file()])
    page.goto(f"{up.pages_url}/v2/runs/flow-run/{flow_run_id}", wait_until="domcontentloaded")
    shows(page, "Running")
    page.get_by_role("button", name="Open menu").first.click()
    page.get_by_role("menuitem", name="Cancel").click()
    screenshot("cancel-question")
    page.get_by_role("alertdialog").get_by_role("button", name="Cancel", exact=False).last.click()
    shows(page, "Cancelled")
    screenshot("cancelled")
    done = up.second_terminal("topn_command", "sweep", "--dry-run")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_block_form_hides_keys(up, page, screenshot):
    page.goto(f"{up.pages_url}/v2/blocks/catalog/topn-azure/create", wait_until="domcontentloaded")
    page.get_by_label("Batch endpoint").wait_for()
    screenshot("block")
    assert page.get_by_label("Batch key").get_attribute("type") == "password"
