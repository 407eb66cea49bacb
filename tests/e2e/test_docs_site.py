"""The documentation builds without warnings, and the commands on its pages work."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys

import pytest
from browser_support import open_browser
from pages_support import PAGES, PAGES_NOT_RUN, assert_shows, is_run, saved_on, shown_in_the_readme, typed_on
from tests_support import REPOSITORY
from up_support import make_checkout

# The first start of `make up` and several runs, perhaps on a busy machine.
pytestmark = pytest.mark.timeout(600)


class Terminal:
    """A shell session: exported variables and the exit status carry over to the next command."""

    def __init__(self, folder, environment):
        self._folder = folder
        self._environment = environment
        self.status = 0

    def type(self, command):
        """Run a command and return its combined stdout and stderr."""
        saved = self._folder / ".environment"
        done = subprocess.run(
            ["bash", "-c", f'(exit {self.status})\n{command}\nstatus=$?; env -0 > "{saved}"; exit $status'],
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=200,
            check=False,
        )
        self._environment = dict(pair.split("=", 1) for pair in saved.read_text().split("\0") if pair)
        self.status = done.returncode
        return done.stdout


@pytest.fixture
def terminal(up, tmp_path):
    """A second terminal beside `make up`, in a folder without earlier results."""
    variables = {"HOME": str(up.home), "TOPN_STATE": str(up.state_folder), "TOPN_RESULTS": str(tmp_path / "known")}
    inherited = {name: value for name, value in os.environ.items() if name != "PREFECT_API_AUTH_STRING"}
    folder = make_checkout(tmp_path / "topn")
    # The pages use a terminal in the folder of `make up`.
    (folder / "prefect.toml").symlink_to(up.cwd / "prefect.toml")
    return Terminal(folder, inherited | variables)


@pytest.mark.xdist_group("up")
@pytest.mark.parametrize(
    "page",
    [
        page
        for page in PAGES
        if page.stem not in PAGES_NOT_RUN and any(is_run(command) for command, _ in typed_on(page))
    ],
    ids=lambda page: page.stem,
)
def test_page_commands_work_and_print_documented_output(page, up, terminal, tmp_path):
    here = {
        "https://prefect.example.com/api": up.api_url,
        "http://127.0.0.1:4200/api": up.api_url,
        # No run fails, so no notice is sent.
        "https://hooks.example.com/": "http://127.0.0.1:9/",
        "/home/me/texts": str(tmp_path / "topn" / "data"),
    }
    for name, content in saved_on(page):
        (tmp_path / "topn" / name).write_text(content)
    typed = [(command, shown) for command, shown in typed_on(page) if is_run(command)]
    for (command, shown), (following, _) in zip(typed, [*typed[1:], ("", [])], strict=True):
        for on_page, replacement in here.items():
            command = command.replace(on_page, replacement)  # noqa: PLW2901
        output = terminal.type(command)
        # Pages that expect another exit status show it with `echo $?`.
        assert terminal.status == 0 or following == "echo $?", f"{command}\n{output}"
        if shown:
            assert_shows(shown, output)


@pytest.mark.xdist_group("up")
def test_make_up_output_matches_readme(up):
    assert_shows(shown_in_the_readme("make up"), up.output)


# One process runs all tests of a group, so the site is built once.
site_group = pytest.mark.xdist_group("site")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site, and the completed Sphinx process."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-d", str(folder / "doctrees")]
    done = subprocess.run(
        [*command, str(REPOSITORY / "docs"), str(folder / "html")],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    return folder / "html", done


@site_group
def test_site_builds_every_page_without_warnings(site):
    folder, done = site
    assert (done.returncode, done.stderr) == (0, "")
    for page in PAGES[1:]:
        assert (folder / page.relative_to(REPOSITORY / "docs")).with_suffix(".html").exists()


@site_group
def test_site_needs_no_network(site):
    folder, _ = site
    fetched = r'<(?:script|link|img|iframe)[^>]*(?:src|href)="(?:https?:)?//|@import|url\(["\']?(?:https?:)?//'
    for path in [*folder.rglob("*.html"), *folder.rglob("*.css")]:
        assert not re.search(fetched, path.read_text()), path


@site_group
def test_site_fits_narrow_screens(site):
    folder, _ = site
    too_wide = {}
    with open_browser() as page:
        page.set_viewport_size({"width": 320, "height": 700})
        for path in folder.rglob("*.html"):
            page.goto(path.as_uri(), wait_until="domcontentloaded")
            width = page.evaluate("document.documentElement.scrollWidth")
            if width > 320:
                too_wide[path.name] = width
    assert too_wide == {}


@site_group
def test_reference_is_complete(site):
    from prefect import Task  # noqa: PLC0415

    from flows.cli.arguments import build_parser  # noqa: PLC0415
    from flows.sweep import sweep  # noqa: PLC0415
    from tasks.model.naming import CLEANUP_ARTIFACT  # noqa: PLC0415

    folder, _ = site
    flow = importlib.import_module("flows.topn")

    def has(page, names):
        text = re.sub(r"<[^>]+>", "", (folder / "reference" / f"{page}.html").read_text())
        assert [name for name in names if name not in text] == []

    has("steps", [name for name, member in vars(flow).items() if isinstance(member, Task)])
    has("parameters", [*flow.topn.parameters.properties, *sweep.parameters.properties])
    sources = [path.read_text() for package in ("flows", "tasks") for path in (REPOSITORY / package).rglob("*.py")]
    has("settings", set(re.findall(r'"(TOPN_[A-Z_]*[A-Z])"', "".join(sources))))
    subcommands = next(action for action in build_parser()._actions if action.dest == "command").choices
    has("commands", [f"topn {name}" for name in subcommands])
    has(
        "commands",
        [text for name in subcommands.values() for action in name._actions for text in action.option_strings],
    )
    created = set(re.findall(r'\bcreate\("(\w+)"', (REPOSITORY / "tasks/report/artifacts.py").read_text()))
    assert len(created) == 3
    has("artifacts", [f"topn-{name}" for name in (*created, "progress")] + [CLEANUP_ARTIFACT])
