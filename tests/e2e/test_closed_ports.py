"""Web pages and other users of the machine cannot use the servers of `make up`, and cannot read its files."""

from __future__ import annotations

import http.client
import http.server
import json
import os
import re
import shutil
import stat
import tempfile
import threading
import urllib.error
import urllib.request
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from browser_support import open_browser, sign_in
from tests_support import processes_of, wait_until
from up_support import Up, make_checkout

from localbatch import DEVELOPMENT_KEY
from localbatch.api.auth import password_header

# One process runs all tests, with one `make up`.
pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("closed ports")]

RUN_SECONDS = 120
NOBODY = 65534

# Only the umask or a Batch task determines the modes in these folders, below a folder that only its owner can enter.
OPEN_FOLDERS = ("results", "storage", "compiled", "azure/nodes")


@pytest.fixture(scope="module")
def up():
    """`make up` under the usual umask, with an open state folder, in a place that all users can reach."""
    umask = os.umask(0o022)
    folder = Path(tempfile.mkdtemp(prefix="topn-closed-ports-"))
    folder.chmod(0o755)
    with ExitStack() as stack:
        stack.callback(os.umask, umask)
        stack.callback(shutil.rmtree, folder)
        instance = Up(folder, cwd=make_checkout(folder / "topn"))
        instance.state_folder.mkdir(mode=0o755)
        (instance.state_folder / "prefect-server.log").touch(0o644)
        stack.callback(instance.stop)
        yield instance.start()


@pytest.fixture(scope="module")
def published(up):
    """The variables that `topn` reads to find the servers."""
    return json.loads((up.state_folder / "up.json").read_text())


@pytest.fixture(scope="module")
def endpoints(up, published):
    """A URL of each server that gives something away or changes something."""
    return {
        "pages": f"{up.pages_url}/dashboard",
        "API": f"{up.api_url}/block_documents/filter",
        "Batch": f"{published['TOPN_BATCH_ENDPOINT']}/pools?api-version=2025-06-01",
        "faults": f"{published['TOPN_BATCH_ENDPOINT']}/_internal/faults",
        "Storage": f"{published['TOPN_STORAGE_ENDPOINT']}?comp=list",
    }


def send(url, method, **headers):
    """Send a request with exactly these headers, and return its status and body."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc)
    connection.putrequest(method, f"{parts.path}?{parts.query}", skip_host=True)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    response = connection.getresponse()
    found = response.status, response.read().decode(), response.headers
    connection.close()
    return found


def test_foreign_host_and_origin_are_refused(up, endpoints):
    """Also with the password, for preflight requests, and for WebSockets."""
    authorization = password_header(*up.password.split(":"))
    websocket = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    websocket |= {"Sec-WebSocket-Key": "x" * 22 + "==", "Sec-WebSocket-Protocol": "prefect"}
    targets = [(url, method, {}) for url in endpoints.values() for method in ("GET", "POST", "OPTIONS")]
    targets += [(f"{up.api_url}/{path}", "GET", websocket) for path in ("events/in", "events/out", "logs/out")]
    for url, method, more in targets:
        own = urlsplit(url)
        for headers in (
            {"Host": own.netloc, "Origin": "http://evil.example"},
            {"Host": own.netloc, "Origin": "null"},
            {"Host": own.netloc, "Origin": f"http://127.0.0.1:{own.port + 1}"},
            {"Host": f"evil.example:{own.port}"},
            {"Host": f"evil.example:{own.port}", "Origin": f"http://evil.example:{own.port}"},
            {"Host": "127.0.0.1"},
        ):
            preflight = {"Access-Control-Request-Method": "POST"} if method == "OPTIONS" else {}
            status, body, answer = send(url, method, Authorization=authorization, **headers, **preflight, **more)
            if url == endpoints["Storage"]:
                assert status in {400, 403}, (url, method, headers)
            else:
                assert (status, body.partition(" ")[0]) == (403, "Refused:"), (url, method, headers)
            assert "access-control-allow-origin" not in answer


def test_own_pages_are_served_but_not_framed(up, endpoints):
    own = urlsplit(up.pages_url)
    for host in (f"127.0.0.1:{own.port}", f"localhost:{own.port}", f"[::1]:{own.port}"):
        status, _, answer = send(endpoints["pages"], "GET", Host=host, Origin=f"http://{host}", Accept="text/html")
        assert (status, answer["content-security-policy"]) == (200, "frame-ancestors 'self'")


@pytest.mark.parametrize("authorization", [None, password_header("topn", "guess"), "Bearer x", "Basic"])
def test_prefect_api_needs_password(up, authorization):
    headers = {} if authorization is None else {"Authorization": authorization}
    host = urlsplit(up.api_url).netloc
    for path in ("block_documents/filter", "deployments/", "flow_runs/filter", "admin/database/clear"):
        status, _, _ = send(f"{up.api_url}/{path}", "POST", Host=host, Content_Length="0", **headers)
        assert status == 401, path


def test_sockets_of_prefect_need_password(up):
    from websockets.exceptions import ConnectionClosed, InvalidHandshake  # noqa: PLC0415 - a package of Prefect
    from websockets.sync.client import connect  # noqa: PLC0415 - as above

    url = up.api_url.replace("http:", "ws:")
    for path in ("events/in", "events/out", "logs/out", "task_runs/subscriptions/scheduled"):
        with pytest.raises((ConnectionClosed, InvalidHandshake)), connect(f"{url}/{path}") as socket:
            socket.recv(timeout=10)
        with connect(f"{url}/{path}", subprotocols=["prefect"]) as socket:
            socket.send(json.dumps({"type": "auth", "token": "topn:guess"}))
            with pytest.raises(ConnectionClosed):
                socket.recv(timeout=10)


def test_command_lines_and_logs_contain_no_secret(up, published):
    secrets = [value for name, value in published.items() if name.endswith(("_KEY", "_STRING"))]
    assert len(secrets) == 3
    commands = [command for _, command in processes_of(str(up.state_folder))]
    assert len(commands) >= 4
    logs = [path.read_bytes() for path in up.state_folder.glob("prefect*.log")]
    for secret in secrets:
        assert not any(secret.encode() in text for text in commands + logs)


def test_prefect_commands_in_folder_need_no_export(up, published):
    """Without any variable, in the folder of `make up` only."""
    toml = up.cwd / "prefect.toml"
    assert stat.S_IMODE(toml.stat().st_mode) == 0o600
    before = len(up.runs())
    done = up.second_terminal(
        "prefect", "--no-prompt", "deployment", "run", "topn/default", "-p", 'inputs=["data/hamlet.txt"]', cwd=up.cwd
    )
    assert done.returncode == 0, done.stderr
    wait_until(lambda: len(up.runs()) == before + 1, "the run exists")
    wait_until(lambda: up.state(up.runs()[0]) == "COMPLETED", "the worker completed it", seconds=RUN_SECONDS)


def others_may(path):
    return stat.S_IMODE(path.lstat().st_mode) & 0o077 and not path.is_symlink()


def test_state_folder_and_its_files_are_private(up):
    state = up.state_folder
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    excluded = [state / name for name in OPEN_FOLDERS]
    paths = [path for path in state.rglob("*") if not any(path.is_relative_to(folder) for folder in excluded)]
    assert {"prefect.db", "up.json", "localbatch.log", "prefect-worker.log"} <= {path.name for path in paths}
    assert [str(path) for path in paths if path.is_file() and others_may(path)] == []


def as_nobody(function):
    """Call a function in a child process of another user, and return its result."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            result = function()
        except BaseException as error:  # noqa: BLE001 - the parent reports it
            result = repr(error)
        os.write(writing, json.dumps(result).encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as pipe:
        result = json.load(pipe)
    os.waitpid(child, 0)
    return result


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_other_user_can_read_and_do_nothing(up, published, endpoints):
    files = [up.state_folder, up.state_folder / "prefect.db", up.state_folder / "up.json"]
    files += [up.state_folder / "azure" / "batch.key", up.cwd / "prefect.toml"]
    files += [Path("/proc", pid, "environ") for pid, _ in processes_of(str(up.state_folder))]

    def attempt():
        found = {}
        for path in files:
            with suppress(PermissionError):
                found[str(path)] = bool(os.listdir(path) if path.is_dir() else path.read_bytes())
        for name, url in endpoints.items():
            headers = {"Authorization": password_header("localbatch", DEVELOPMENT_KEY), "Accept": "text/html"}
            request = urllib.request.Request(url, headers=headers)
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    found[name] = answer.status
            except urllib.error.HTTPError as error:
                found[name] = error.code
        return found

    assert as_nobody(os.geteuid) == NOBODY
    # The pages contain no data.
    assert as_nobody(attempt) == {"pages": 200, "API": 401, "Batch": 400, "faults": 401, "Storage": 403}


# A recent Chromium blocks some of these requests itself. Other browsers do not.
UNPROTECTED = "--disable-features=LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests"

EVIL_PAGE = "<!doctype html><title>evil</title><p>evil"

# Sends every request that a page can send to a URL, and returns those that the page got an answer to.
ATTACK = """
async ([urls, socket]) => {
  const answers = [];
  const json = {"Content-Type": "application/json"};
  for (const url of urls) {
    for (const [method, headers] of [["GET", {}], ["POST", {}], ["POST", json], ["PUT", json], ["DELETE", {}]]) {
      try {
        const answer = await fetch(url, {method, headers, body: method[0] == "P" ? "{}" : undefined});
        answers.push(`${method} ${url}: ${answer.status}`);
      } catch (error) {}
      try { await fetch(url, {method, mode: "no-cors", body: method[0] == "P" ? "{}" : undefined}); } catch (error) {}
    }
  }
  await new Promise(resolve => {
    const opened = new WebSocket(socket, "prefect");
    opened.onopen = () => { answers.push("WebSocket"); resolve(); };
    opened.onerror = resolve;
  });
  return answers;
}
"""


@pytest.fixture(scope="module")
def evil_url():
    """The URL of a page of another server on this machine, which is at the same site as the servers of `make up`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(EVIL_PAGE.encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture
def page():
    """A page of a browser in which the name evil.example leads to this machine."""
    with open_browser("--host-resolver-rules=MAP evil.example 127.0.0.1", UNPROTECTED) as page:
        yield page


def test_page_of_other_origin_gets_no_answer(up, page, endpoints, evil_url):
    page.goto(evil_url)
    socket = f"{up.api_url}/events/out".replace("http:", "ws:")
    assert page.evaluate(ATTACK, [list(endpoints.values()), socket]) == []
    with page.expect_console_message(lambda message: "frame-ancestors" in message.text):
        page.evaluate("url => document.body.appendChild(document.createElement('iframe')).src = url", up.pages_url)


def test_page_of_rebound_name_gets_only_refusals(page, endpoints):
    """The page was loaded from a server with this name, which now leads to this machine: all answers are readable."""
    page.route("**/evil", lambda route: route.fulfill(content_type="text/html", body=EVIL_PAGE))
    for url in endpoints.values():
        rebound = url.replace("127.0.0.1", "evil.example")
        page.goto(f"http://{urlsplit(rebound).netloc}/evil")
        for options in ({}, {"method": "POST", "body": "{}"}, {"method": "PUT", "body": "{}"}):
            status, body = page.evaluate(
                "async ([url, options]) => { const a = await fetch(url, options); return [a.status, await a.text()] }",
                [rebound, options],
            )
            assert status in {400, 403}, url
            if url != endpoints["Storage"]:
                assert re.match(r"Refused: (Host|Origin) is '\S+' instead of", body)


def test_pages_ask_for_printed_password(up, page):
    sign_in(page, up)
    page.get_by_text("Flow Runs").first.wait_for()
