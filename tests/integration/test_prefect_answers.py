"""Answers of a user's Prefect server that is none: each command prints one sentence and exits with 2."""

from __future__ import annotations

import http.server
import threading
from pathlib import Path

import pytest

RUN, CHECK, SWEEP, PLAN = ["run", "a.txt"], ["check"], ["sweep"], ["plan", "a.txt"]


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers every request with the status and the body of the server."""

    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    do_POST = do_GET  # noqa: N815 - the name that the base class calls

    def log_message(self, *arguments):
        pass


@pytest.fixture
def other_server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        server.url = f"http://127.0.0.1:{server.server_port}/api"
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("command", "status", "body", "sentence"),
    [
        (RUN, 401, b"", "rejected the password (HTTP 401). Set `PREFECT_API_AUTH_STRING`"),
        (CHECK, 401, b"", "rejected the password (HTTP 401). Set `PREFECT_API_AUTH_STRING`"),
        (SWEEP, 401, b"", "rejected the password (HTTP 401). Set `PREFECT_API_AUTH_STRING`"),
        (RUN, 403, b"<html>", "rejected the password (HTTP 403)"),
        (RUN, 404, b"<html>", "is not the API of a Prefect server (HTTP 404). Correct `PREFECT_API_URL`"),
        (RUN, 500, b"", "failed (HTTP 500)"),
        (RUN, 200, b"<html>Prefect</html>", "is not the API of a Prefect server (its answer is not JSON of Prefect)"),
        (CHECK, 200, b"<html>Prefect</html>", "is not the API of a Prefect server (its answer is not JSON of Prefect)"),
        (SWEEP, 200, b"<html>Prefect</html>", "is not the API of a Prefect server (its answer is not JSON of Prefect)"),
        (RUN, 200, b"", "is not the API of a Prefect server"),
        (RUN, 200, b'{"other": 1}', "is not the API of a Prefect server"),
    ],
)
def test_other_answers_are_one_sentence(topn, other_server, command, status, body, sentence):
    Path("a.txt").write_text("one")
    other_server.status, other_server.body = status, body
    secret_url = other_server.url.replace("//", "//me:secret@")
    done = topn(*command, PREFECT_API_URL=secret_url)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done
    assert other_server.url in done.stderr
    assert sentence in done.stderr


@pytest.mark.parametrize(
    ("command", "variable"),
    [
        *((command, "SSL_CERT_FILE") for command in (RUN, CHECK, SWEEP, PLAN)),
        (RUN, "REQUESTS_CA_BUNDLE"),
        (RUN, "SSL_CERT_DIR"),
    ],
)
def test_missing_certificate_is_one_sentence(topn, command, variable):
    Path("a.txt").write_text("one")
    done = topn(*command, **{variable: "/missing"})
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done
    assert f"The variable {variable} is `/missing`" in done.stderr
