"""The documentation's site is built without a warning, and what its pages tell people to type works."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys

import pytest
from tests_support import REPOSITORY
from up_support import Up

README = REPOSITORY / "README.md"
TUTORIAL = REPOSITORY / "docs" / "tutorial.md"
PAGES = [README, *sorted((REPOSITORY / "docs").rglob("*.md"))]

AZURE = "there is no Azure here"
DOCKER = "there may be no Docker here"

# What is typed on a page and not run here, and why.
NOT_RUN = {
    "make run": ".ci/run runs it; its output is compared with that of the tutorial",
    "make test": ".ci/run runs it",
    "make setup": ".ci/run runs it, with all that needs it",
    "make up": "the fixture has what it calls running, and a test compares its output",
    ".venv/bin/prefect worker start --pool topn-pool": "it runs for ever; tests/flows/test_worker.py has one",
    "docker build --tag topn-worker .": DOCKER,
    "docker run --env PREFECT_API_URL --env TOPN_BATCH_ENDPOINT --env TOPN_STORAGE_ENDPOINT \\": DOCKER,
    "docker run --env PREFECT_API_URL topn-worker sh -c \\": DOCKER,
    "az login": AZURE,
    "az group create --name topn --location westeurope": AZURE,
    "az group delete --name topn": AZURE,
    "az provider register --namespace Microsoft.Batch --wait": AZURE,
    "az deployment group create --resource-group topn --name topn --template-file infra/main.bicep \\": AZURE,
    'echo "TOPN_BATCH_ENDPOINT=$(az deployment group show -g topn -n topn --query properties.outputs.batchEndpoint.value -o tsv)" > .env': AZURE,
    'echo "TOPN_STORAGE_ENDPOINT=$(az deployment group show -g topn -n topn --query properties.outputs.storageEndpoint.value -o tsv)" >> .env': AZURE,
    "az storage account create --resource-group topn --name mystorage --location westeurope --sku Standard_LRS": AZURE,
    "az batch account create --resource-group topn --name mybatch --location westeurope": AZURE,
    'az role assignment create --role "Storage Blob Data Contributor" --assignee PRINCIPAL --scope STORAGE_ACCOUNT_ID': (
        AZURE
    ),
    'az role assignment create --role "Azure Batch Data Contributor" --assignee PRINCIPAL --scope BATCH_ACCOUNT_ID': (
        AZURE
    ),
}

# A first start of `make up`, and then several runs; on a machine that may be busy.
pytestmark = pytest.mark.timeout(600)


def blocks_of(page):
    """The blocks of a page that show a terminal."""
    return re.findall(r"^```console\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def typed_on(page):
    """Each command of a page, and the lines that the page shows of its output."""
    typed = []
    for line in "".join(blocks_of(page)).splitlines():
        if line.startswith("$ "):
            typed.append((line[2:], []))
        elif typed and typed[-1][0].endswith("\\"):
            command, shown = typed.pop()
            typed.append((f"{command}\n{line}", shown))
        elif typed:
            typed[-1][1].append(line)
    return typed


def saved_on(page):
    """Each file that a page tells to save, and its content."""
    return re.findall(r"^Save this as `(.*?)`.*?\n\n```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def first_line(command):
    return command.partition("\n")[0]


def is_run(command):
    return first_line(command) not in NOT_RUN


def shape(line):
    """A line without what differs from run to run: ids, numbers, folders and the width of columns."""
    line = re.sub(r"[0-9a-f]{16,}", "ID", line)
    line = re.sub(r"\S*/bin/", "bin/", line)
    line = re.sub(r"(/[\w.-]+)+/", "/…/", line)
    # A status stands alone, and is meant as it is.
    line = line if line.isdigit() else re.sub(r"\d[\d.,:]*\d|\d", "0", line)
    return " ".join(line.split())


def assert_shows(shown, output):
    """Compare the shapes of an output and of what a page shows of it, where "…" stands for any lines."""
    pattern = "".join(r"(?:.*\n)*?" if line == "…" else re.escape(f"{shape(line)}\n") for line in shown)
    shapes = "".join(f"{shape(line)}\n" for line in output.splitlines())
    assert re.fullmatch(pattern, shapes), f"the page shows\n{chr(10).join(shown)}\nbut there was\n{output}"


class Terminal:
    """What is exported in one command is there for the next, and so is the exit status."""

    def __init__(self, folder, environment):
        self._folder = folder
        self._environment = environment
        self.status = 0

    def type(self, command):
        """Run a command; returns its output, on stdout and stderr together."""
        left = self._folder / ".environment"
        done = subprocess.run(
            ["bash", "-c", f'(exit {self.status})\n{command}\nstatus=$?; env -0 > "{left}"; exit $status'],
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=200,
            check=False,
        )
        self._environment = dict(pair.split("=", 1) for pair in left.read_text().split("\0") if pair)
        self.status = done.returncode
        return done.stdout


def make_checkout(folder):
    """Make a folder that is like this repository with its `.venv`, and holds what is written there."""
    folder.mkdir()
    for path in REPOSITORY.iterdir():
        if not path.name.startswith(".") and path.name != "results":
            (folder / path.name).symlink_to(path)
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


@pytest.fixture(scope="module")
def up(tmp_path_factory):
    """What `make up` has running."""
    folder = tmp_path_factory.mktemp("up")
    instance = Up(folder, cwd=make_checkout(folder / "topn"))
    try:
        yield instance.start()
    finally:
        instance.stop()


@pytest.fixture
def terminal(up, tmp_path):
    """A second terminal beside `make up`, in a folder where nothing was counted yet."""
    variables = {"HOME": str(up.home), "TOPN_STATE": str(up.state_folder), "TOPN_RESULTS": str(tmp_path / "known")}
    return Terminal(make_checkout(tmp_path / "topn"), os.environ | variables)


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(is_run(command) for command, _ in typed_on(page))],
    ids=lambda page: page.stem,
)
def test_what_a_page_tells_to_type_works_and_shows_what_the_page_shows(page, up, terminal, tmp_path):
    here = {
        "https://prefect.example.com/api": up.api_url,
        "http://127.0.0.1:4200/api": up.api_url,
        # Nothing is sent there: no run fails.
        "https://hooks.example.com/": "http://127.0.0.1:9/",
        "/home/me/texts": str(tmp_path / "topn" / "data"),
    }
    for name, content in saved_on(page):
        (tmp_path / "topn" / name).write_text(content)
    typed = [(command, shown) for command, shown in typed_on(page) if is_run(command)]
    for (command, shown), (following, _) in zip(typed, [*typed[1:], ("", [])], strict=True):
        for stands_there, stands_here in here.items():
            command = command.replace(stands_there, stands_here)  # noqa: PLW2901
        output = terminal.type(command)
        # A page that shows the status of a command says what it is.
        assert terminal.status == 0 or following == "echo $?", f"{command}\n{output}"
        if shown:
            assert_shows(shown, output)


def test_the_output_of_make_up_is_that_of_the_readme(up):
    assert_shows(shown_in_the_readme("make up"), up.output)


def test_the_output_of_make_run_in_the_readme_is_that_of_a_run_of_the_tutorial():
    [shown] = [shown for command, shown in typed_on(TUTORIAL) if command.endswith("--keep-pool")]
    assert_shows(shown, "\n".join(shown_in_the_readme("make run")))


def shown_in_the_readme(command):
    pattern = rf"<!-- output of {command} -->\n```console\n(.*?)```\n<!-- end of output -->"
    return re.search(pattern, README.read_text(), re.DOTALL).group(1).splitlines()


def test_what_is_not_run_stands_on_a_page():
    typed = {first_line(command) for page in PAGES for command, _ in typed_on(page)}
    assert set(NOT_RUN) - typed == set()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, and what Sphinx said of it."""
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


def test_the_site_is_built_without_a_warning_from_every_page(site):
    folder, done = site
    assert (done.returncode, done.stderr) == (0, "")
    for page in PAGES[1:]:
        assert (folder / page.relative_to(REPOSITORY / "docs")).with_suffix(".html").exists()


def test_the_site_needs_no_network(site):
    folder, _ = site
    fetched = r'<(?:script|link|img|iframe)[^>]*(?:src|href)="(?:https?:)?//|@import|url\(["\']?(?:https?:)?//'
    for path in [*folder.rglob("*.html"), *folder.rglob("*.css")]:
        assert not re.search(fetched, path.read_text()), path


def test_the_reference_has_every_step_parameter_setting_option_and_artifact(site):
    from prefect import Task  # noqa: PLC0415

    from flows.cli import _parser  # noqa: PLC0415
    from flows.sweep import sweep  # noqa: PLC0415
    from tasks import begin  # noqa: PLC0415

    folder, _ = site
    flow = importlib.import_module("flows.topn")

    def has(page, names):
        text = re.sub(r"<[^>]+>", "", (folder / "reference" / f"{page}.html").read_text())
        assert [name for name in names if name not in text] == []

    has("steps", [name for name, member in vars(flow).items() if isinstance(member, Task)])
    has("parameters", [*flow.topn.parameters.properties, *sweep.parameters.properties])
    sources = [path.read_text() for package in ("flows", "tasks") for path in (REPOSITORY / package).glob("*.py")]
    has("settings", set(re.findall(r'"(TOPN_[A-Z_]*[A-Z])"', "".join(sources))))
    subcommands = next(action for action in _parser()._actions if action.dest == "command").choices
    has("commands", [f"topn {name}" for name in subcommands])
    has(
        "commands",
        [text for name in subcommands.values() for action in name._actions for text in action.option_strings],
    )
    created = re.findall(r'\bcreate\("(\w+)"', (REPOSITORY / "tasks/artifacts.py").read_text())
    assert len(created) == 3
    has("artifacts", [f"topn-{name}" for name in (*created, "progress")] + [begin.CLEANUP_ARTIFACT])


def test_every_category_of_failures_is_explained():
    from tasks.models import Category  # noqa: PLC0415

    page = (REPOSITORY / "docs" / "what-to-do-when.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == [category.value for category in Category]
