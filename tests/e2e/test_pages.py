"""Prefect's pages under `make up`, used in a real browser."""

from __future__ import annotations

import json
import os
import urllib.request
from pathlib import Path

import pytest
from browser_support import open_browser, sign_in
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from run_reports import HOSTILE, counted, failed, hostile_report, run_report, usage
from tests_support import wait_until

from localbatch.api.auth import password_header
from tasks.report.folders import LocalFolder
from tasks.report.html import write_page
from tasks.report.markdown import block, code, escape_markdown, failures, failures_summary, results, summary
from tasks.text import printable, printable_lines

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("up"),
]

# Submitting the form sends two requests, and the server may be busy.
ANSWER_TIMEOUT_MILLISECONDS = 30_000


@pytest.fixture
def page(up):
    """A page of a browser that knows the password of the server."""
    with open_browser() as page:
        sign_in(page, up)
        yield page


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
    headers = {"Authorization": password_header(variables["TOPN_BATCH_ACCOUNT"], variables["TOPN_BATCH_KEY"])}
    body = json.dumps({"fault": "endless_task", "task": "*"}).encode()
    urllib.request.urlopen(urllib.request.Request(faults, body, headers)).close()
    yield
    urllib.request.urlopen(urllib.request.Request(faults, headers=headers, method="DELETE")).close()


# Syntax of Markdown, HTML and addresses. The address is one where nothing listens.
SYNTAX = [
    "q![](http://127.0.0.1:9/p)q",
    "[a]: http://127.0.0.1:9/",
    "<img src=http://127.0.0.1:9/i>",
    *["http://127.0.0.1:9/x", "HTTPS://a.example", "ftp://a.example", "www.a.example", "WWW.a.example", "me@a.example"],
    *[
        "[link](http://127.0.0.1:9/l)",
        "<http://127.0.0.1:9/>",
        "<script>alert(1)</script>",
        "</li>",
        "</td>",
        "<b>",
        "<!--",
        "-->",
        "<?",
    ],
    *[
        "&amp;",
        "&#65;",
        "&lt;",
        "`",
        "``",
        "```",
        "~~~",
        "**b**",
        "__init__",
        "*",
        "_",
        "~~s~~",
        "---",
        "===",
        "|",
        "\\|",
        "\\",
        "[^1]",
        "$x$",
        ":smile:",
        "a",
        "é",
        "中",
    ],
    *("# h", "> q", "- ", "+ ", "1. ", "1) ", "[ ]", "    ", " ", "\n", "\x1b[31m", "\u202e"),
]
texts = st.one_of(st.lists(st.sampled_from(SYNTAX), min_size=1, max_size=6).map("".join), st.text(min_size=1))


def generated(strategy, count):
    """Return random values. One page shows all of them, so that the test needs only one page."""
    values = []

    @settings(max_examples=count, phases=[Phase.generate], database=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def collect(value):
        values.append(value)

    collect()
    return values


# Returns the texts below the element that contains `end`, and the names of all elements.
READ_TEXTS = """end => {
  let page = [...document.querySelectorAll('*')].filter(found => found.textContent.trim() === end).pop();
  while (!page.querySelector('table')) page = page.parentElement;
  const texts = selector => [...page.querySelectorAll(selector)].map(found => found.textContent);
  return {items: texts('ul > li'), codes: texts('ol > li'), cells: texts('td'), blocks: texts('pre'),
    elements: [...new Set([...page.querySelectorAll('*')].map(found => found.localName))]};
}"""

# The old pages wrap texts in `div` and `span`, and draw a line below a heading.
TEXT_ELEMENTS = set("div span hr h1 h2 p ul ol li code pre table thead tbody tr th td".split())  # noqa: SIM905


def normalized(texts):
    return [" ".join(text.split()) for text in texts]


@pytest.fixture
def foreign_requests(page, up):
    """The addresses of other servers that the page requested because of the artifacts."""
    found = []

    def add(request):
        # The pages themselves send usage statistics.
        if not request.url.startswith((up.pages_url, "data:", "blob:")) and "amplitude.com" not in request.url:
            found.append(request.url)

    page.on("request", add)
    return found


@pytest.mark.parametrize("pages", ["/v2", ""])
def test_artifact_shows_any_text_as_text(up, page, foreign_requests, pages):
    found = [*SYNTAX, *generated(texts, 300)]
    # The old pages decode character references in code blocks.
    blocks = [text for text in found if "&" not in text][:100]
    lines = [f"- {escape_markdown(text)}" for text in found]
    lines += ["", "codes", "", *(f"1. {code(text)}" for text in found)]
    lines += ["", "cells", "", "| a | b |", "|---|---|", *(f"| {escape_markdown(text)} | b |" for text in found), ""]
    lines += [*(f"{block(text)}\n" for text in blocks), "the end"]
    items = "\n".join(f"- {escape_markdown(text)}" for text in SYNTAX)
    artifact = up.post("/artifacts/", key="texts", type="markdown", data="\n".join(lines), description=items)
    page.goto(f"{up.pages_url}{pages}/artifacts/artifact/{artifact['id']}", wait_until="domcontentloaded")
    shows(page, "the end")
    shown = page.evaluate(READ_TEXTS, "the end")
    assert normalized(shown["items"]) == normalized(map(printable, found))
    assert normalized(shown["codes"]) == normalized(map(printable, found))
    assert normalized(shown["cells"][::2]) == normalized(map(printable, found))
    assert normalized(shown["blocks"]) == normalized(map(printable_lines, blocks))
    assert set(shown["elements"]) <= TEXT_ELEMENTS
    for text in normalized(map(printable, SYNTAX)):
        assert page.locator("li", has_text=text).count() >= 2 or len(text) < 2, f"the description does not show {text}"
    assert page.locator("li img, li b, li script").count() == 0
    assert foreign_requests == []


@pytest.mark.parametrize("pages", ["/v2", ""])
def test_artifacts_of_hostile_run_contain_no_foreign_elements(up, page, foreign_requests, pages, screenshot):
    report = hostile_report()
    for name, render in (("summary", summary), ("results", results), ("failures", failures)):
        data = f"{render(report)}\n\n| a |\n|---|\n\nthe end"
        artifact = up.post("/artifacts/", key=name, type="markdown", data=data, description=failures_summary(report))
        page.goto(f"{up.pages_url}{pages}/artifacts/artifact/{artifact['id']}", wait_until="domcontentloaded")
        shows(page, "the end")
        assert set(page.evaluate(READ_TEXTS, "the end")["elements"]) <= TEXT_ELEMENTS
        screenshot(f"hostile-{name}{pages.replace('/', '-')}")
    assert foreign_requests == []


def test_html_report_shows_hostile_texts_as_text(tmp_path):
    requests = []
    write_page(hostile_report(), LocalFolder(tmp_path))
    path = tmp_path / "report.html"
    with open_browser() as page:
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        shown = page.evaluate("document.body.textContent")
        assert page.locator("main :is(img, script, iframe, object, b, strong, em)").count() == 0
        links = page.eval_on_selector_all("a", "all => all.map(a => a.href)")
    for text in HOSTILE:
        assert printable_lines(text)[:30] in shown
    assert all(link.startswith("file:///") for link in links)
    assert requests == [path.as_uri()]


WIDTHS = (320, 400, 1400)


def names_in_table(page):
    return page.eval_on_selector_all("table.files tbody tr", "rows => rows.map(row => row.cells[0].textContent)")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_html_report_fits_its_window(tmp_path, scheme):
    colours = set()
    with open_browser() as page:
        page.emulate_media(color_scheme=scheme)
        for report in (hostile_report(), run_report(*(failed(n) for n in range(3)), usage=usage())):
            write_page(report, LocalFolder(tmp_path))
            page.goto((tmp_path / "report.html").as_uri())
            for width in WIDTHS:
                page.set_viewport_size({"width": width, "height": 900})
                assert page.evaluate("document.documentElement.scrollWidth") == width
            colours.add(page.evaluate("getComputedStyle(document.body).color"))
            colours.add(page.evaluate("getComputedStyle(document.querySelector('svg text')).fill"))
    assert colours == {"rgb(228, 233, 238)" if scheme == "dark" else "rgb(31, 41, 51)"}


def test_html_report_sorts_and_filters_by_keyboard(tmp_path):
    files = [counted(n, f"file{n}.txt", (("the", n),), unchanged=n > 2) for n in range(300)]
    write_page(run_report(*files, failed(300, "bad.txt"), usage=usage()), LocalFolder(tmp_path))
    uri = (tmp_path / "report.html").as_uri()
    messages = []
    with open_browser() as page:
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.goto(uri)
        assert names_in_table(page) == ["bad.txt", *(f"file{n}.txt" for n in range(49))]
        page.get_by_role("button", name="Show all 301").press("Enter")
        assert len(names_in_table(page)) == 301
        assert page.evaluate("document.activeElement.textContent") == "file49.txt"
        head = page.get_by_role("columnheader", name="file")
        for order, ends in (("ascending", ("bad.txt", "file299.txt")), ("descending", ("file299.txt", "bad.txt"))):
            head.get_by_role("button").press("Enter")
            assert head.get_attribute("aria-sort") == order
            assert (names_in_table(page)[0], names_in_table(page)[-1]) == ends
        page.get_by_label("Search").press_sequentially("FILE29")
        assert names_in_table(page) == [*(f"file{n}.txt" for n in range(299, 289, -1)), "file29.txt"]
        assert page.get_by_role("status").text_content() == "11 of 11 found files are shown, of 301 in all."
        page.get_by_label("Search").fill("")
        page.get_by_label("Show").select_option("counted")
        assert names_in_table(page) == ["file2.txt", "file1.txt", "file0.txt"]
        page.get_by_label("Show").select_option("failed")
        assert names_in_table(page) == ["bad.txt"]
        assert messages == []

        plain = page.context.browser.new_page(java_script_enabled=False)
        plain.goto(uri)
        assert plain.locator("table.files tbody tr").count() == 301
        assert plain.locator(":is(input, select, button):visible").count() == 0


def text_file():
    Path("a.txt").write_text(f"one two two {os.getcwd()}")
    return os.path.abspath("a.txt")


def shows(page, text):
    page.get_by_text(text, exact=True).first.wait_for()


def field(page, name):
    """Return the part of the form that belongs to the optional parameter `name`."""
    return page.get_by_text(f"{name} (Optional)", exact=True).locator("xpath=ancestor::div[fieldset][1]")


def fill_optional(page, name, value):
    """Choose that the parameter `name` is a text, and enter it."""
    field(page, name).get_by_role("tab", name="str").click()
    field(page, name).locator("textarea").fill(value)


def until_answered(page, url, act):
    """Repeat an action that sends a request to `url` until the server answers, and return the answer.

    A click gets lost while the page is loading, and the pages do not repeat a request that a busy server rejects.
    """
    from playwright.sync_api import TimeoutError as NoAnswerError  # noqa: PLC0415 - not needed where this is skipped

    for _ in range(5):
        try:
            with page.expect_response(url, timeout=ANSWER_TIMEOUT_MILLISECONDS) as answer:
                act()
        except NoAnswerError:
            continue
        if answer.value.status < 500:
            return answer.value
    pytest.fail(f"No answer from {url}. The page shows:\n{page.locator('body').inner_text()}")


def submit(page):
    """Submit the form, and return the answer to the request that creates the run."""
    return until_answered(page, "**/create_flow_run", page.get_by_role("button", name="Submit").click)


def test_form_starts_run_and_page_shows_steps(up, page, open_form, screenshot):
    before = up.runs()
    open_form()
    for words in ("Text files, folders, or patterns", "Number of words per file.", "neither changes nor"):
        page.get_by_text(words).first.wait_for()
    screenshot("form")
    page.locator("textarea").first.fill(text_file())
    page.get_by_label("num_words").fill("2")
    page.get_by_label("output_folder").fill(os.path.abspath("results"))
    fill_optional(page, "report_folder", os.path.abspath("page"))
    flow_run_id = submit(page).json()["id"]
    page.wait_for_url(lambda url: not url.endswith("/run"), wait_until="commit")
    assert set(up.runs()) == {*before, flow_run_id}

    reported = {"flow_runs": {"id": {"any_": [flow_run_id]}}, "artifacts": {"key": {"any_": ["topn-cleanup"]}}}
    wait_until(lambda: up.post("/artifacts/filter", **reported), "the run is over and cleaned up")
    page.goto(f"{up.pages_url}/v2/runs/flow-run/{flow_run_id}", wait_until="domcontentloaded")
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
    # The page about the run leads to the run, and the summary of the run names the page.
    page.goto(Path("page/report.html").absolute().as_uri())
    page.get_by_role("link", name="This run in Prefect").click()
    page.wait_for_url(f"{up.pages_url}/**/{flow_run_id}**", wait_until="commit")
    [summary] = up.post("/artifacts/filter", **reported | {"artifacts": {"key": {"any_": ["topn-summary"]}}})
    assert os.path.abspath("page/report.html") in summary["data"]


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
    fill_optional(page, "pool_id", "no id!")
    submit(page)
    shows(page, "'no id!' is not valid under any of the given schemas")
    page.get_by_text("Id of an existing pool").first.wait_for()
    screenshot("refused-by-the-server")
    assert up.runs() == before


def test_cancelling_run_from_page_leaves_no_resources(up, endless_tasks, page, screenshot):
    flow_run_id = up.create_run(inputs=[text_file()])
    page.goto(f"{up.pages_url}/v2/runs/flow-run/{flow_run_id}", wait_until="domcontentloaded")
    shows(page, "Running")

    def cancel():
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Open menu").first.click()
        page.get_by_role("menuitem", name="Cancel").click()
        screenshot("cancel-question")
        page.get_by_role("alertdialog").get_by_role("button", name="Cancel", exact=False).last.click()

    until_answered(page, f"**/{flow_run_id}/set_state", cancel)
    shows(page, "Cancelled")
    screenshot("cancelled")

    def nothing_is_left():
        done = up.second_terminal("topn_command", "sweep", "--dry-run")
        assert done.returncode == 0, done.stderr
        return done.stdout == ""

    # The hook deletes the resources after the state is set.
    wait_until(nothing_is_left, "the resources are deleted")


def test_block_form_hides_keys(up, page, screenshot):
    page.goto(f"{up.pages_url}/v2/blocks/catalog/topn-azure/create", wait_until="domcontentloaded")
    page.get_by_label("Batch endpoint").wait_for()
    screenshot("block")
    assert page.get_by_label("Batch key").get_attribute("type") == "password"
