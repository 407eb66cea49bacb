"""Malformed requests are refused with the codes of the service, and change nothing."""

from __future__ import annotations

import json
import socket
from urllib.parse import urlsplit

import pytest

from localbatch import http_protocol

API = "api-version=2025-06-01"

SEND_SECONDS = 60.0


@pytest.mark.parametrize(
    "body",
    [
        b'{"id": "h1", "poolInfo": {"poolId": "x"}, "onTaskFailure": "\\ud800"}',
        b'{"id": "h2", "poolInfo": {"poolId": "x"}, "\\uDFFF": 1}',
        b'{"id": "h3", "poolInfo": {"poolId": "x"}, "foo": NaN}',
        b'{"id": "h4", "poolInfo": {"poolId": "x"}, "foo": -Infinity}',
        b'{"id": "h5", "poolInfo": {"poolId": "x"}, "foo": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"id": "h6", "poolInfo": {"poolId": "x"}, "foo": ' + b"9" * 5000 + b"}",
        b'{"id": "h7", "poolInfo": {"poolId": "x"}, "foo": "' + b"\xff" + b'"}',
    ],
    ids=lambda body: body[8:10].decode(),
)
def test_invalid_json_is_refused(ask, body):
    status, answer, _ = ask("POST", f"/jobs?{API}", body)
    assert (status, answer["code"]) == (400, "InvalidRequestBody")
    assert ask("GET", f"/jobs/{body[8:10].decode()}?{API}")[0] == 404


def test_surrogate_pair_is_letter(ask):
    body = b'{"id": "h9", "poolInfo": {"poolId": "x"}, "displayName": "\\ud83d\\ude00"}'
    assert ask("POST", f"/jobs?{API}", body)[0] == 201
    assert ask("GET", f"/jobs/h9?{API}")[1]["displayName"] == "\U0001f600"


@pytest.mark.parametrize("size", ["9" * 5000, "00000000001", "-1", "1e3"])
def test_invalid_page_size_is_refused(ask, size):
    status, answer, _ = ask("GET", f"/jobs?{API}&maxresults={size}")
    code = "OutOfRangeQueryParameterValue" if size.startswith("9") else "InvalidQueryParameterValue"
    assert (status, answer["code"]) == (400, code)


FAR_FUTURE = "Sun, 22 Nov 99999999999 10:24:09 GMT"


@pytest.mark.parametrize("header", ["If-Modified-Since", "If-Unmodified-Since"])
def test_impossible_date_is_refused(ask, header):
    ask("POST", f"/jobs?{API}", b'{"id": "h10", "poolInfo": {"poolId": "x"}}')
    status, answer, _ = ask("GET", f"/jobs/h10?{API}", **{header.lower(): FAR_FUTURE})
    assert (status, answer["code"]) == (400, "InvalidHeaderValue")


def test_impossible_request_date_is_not_authentic(ask):
    status, answer, _ = ask("GET", f"/jobs?{API}", **{"ocp-date": FAR_FUTURE})
    assert (status, answer["code"]) == (403, "AuthenticationFailed")


def test_invalid_filter_value_is_refused(ask):
    for condition in (f"creationTime%20ge%20DateTime'{FAR_FUTURE.replace(' ', '%20')}'", f"id%20eq%20{'9' * 5000}"):
        status, _, _ = ask("GET", f"/jobs?{API}&$filter={condition}")
        assert status == 400


@pytest.fixture
def say(local_azure, monkeypatch):
    """Send bytes to the account, with its name for the host x, and perhaps no more; return all that comes back."""
    # On a busy machine, sending takes long. The server must not close the connection before that.
    monkeypatch.setattr(http_protocol, "LINGER_SECONDS", SEND_SECONDS)

    def send(text, *, ends=False):
        address = urlsplit(local_azure.endpoint)
        with socket.create_connection((address.hostname, address.port), timeout=SEND_SECONDS) as connection:
            connection.sendall(text.replace(b"host: x", f"host: {address.netloc}".encode()))
            if ends:
                connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(1 << 16), b""))

    return send


@pytest.mark.parametrize(
    "text",
    [
        b"nonsense\r\n\r\n",
        b"GET /jobs HTTP/1.1\r\n\r\n",
        b"GET /j\xc3\xb6bs HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST /jobs HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        # More than fits into the buffers of a connection.
        b"GET /jobs HTTP/1.1\r\nhost: x\r\n" + b"x: y\r\n" * 2_000_000,
    ],
    ids=["nothing", "without a host", "not in ASCII", "with a length below zero", "with a head too large"],
)
def test_malformed_http_gets_a_service_error(say, text):
    head, _, content = say(text).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(content)["code"] == "InvalidInput"


def test_refused_client_is_disconnected(local_azure, monkeypatch):
    monkeypatch.setattr(http_protocol, "LINGER_SECONDS", 0.0)
    address = urlsplit(local_azure.endpoint)
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        with pytest.raises(ConnectionError):
            _send_without_end(connection)


def _send_without_end(connection):
    while True:
        connection.sendall(b"more")


PARTIAL = (
    b'POST /jobs HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{"id": "partial", "poolInfo": {"poolId": "x"}}'
)


def test_incomplete_unsigned_body_is_refused(say, ask, monkeypatch):
    monkeypatch.setattr(http_protocol, "BODY_SECONDS", 0.2)
    head, _, content = say(PARTIAL).partition(b"\r\n\r\n")
    # Authentication comes before the body.
    assert (head.split()[1], json.loads(content)["code"]) == (b"403", "AuthenticationFailed")
    assert b"connection: close" in head.lower()
    assert ask("GET", f"/jobs/partial?{API}")[0] == 404


def test_refused_page_is_disconnected(say):
    """The server does not wait for the body that a page announced."""
    assert say(PARTIAL.replace(b"host: x", b"host: evil.example")).startswith(b"HTTP/1.1 403 ")


def test_incomplete_signed_body_times_out(ask, monkeypatch):
    monkeypatch.setattr(http_protocol, "BODY_SECONDS", 0.2)
    status, answer, _ = ask("POST", f"/jobs?{API}", b"{", **{"content-length": "1000"})
    assert (status, answer["code"]) == (500, "OperationTimedOut")


def test_aborted_request_has_no_effect(say, ask, local_azure):
    def additions():
        return [record for record in local_azure.batch.requests if (record.method, record.path) == ("POST", "/jobs")]

    before = additions()
    assert say(PARTIAL, ends=True) == b""
    assert additions() == before
    assert ask("GET", f"/jobs/partial?{API}")[0] == 404
