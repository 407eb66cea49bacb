"""A proxy in front of an Azure service that replaces answers."""

from __future__ import annotations

import contextlib
import http.client
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlsplit

HTML = b"<!DOCTYPE html><html><body>Sign in to the network</body></html>"


@dataclass
class Reply:
    """An answer of a service; `body` may also be an iterable of blocks, which are sent one after the other."""

    method: str
    path: str
    status: int
    headers: dict
    body: object
    length: int | None = None


def html(reply, status=200):
    """An answer of a proxy or a sign-in page, without any header of the service."""
    reply.status, reply.headers, reply.body = status, {"content-type": "text/html"}, HTML


def html_with_headers(reply, status=200):
    reply.status, reply.body = status, HTML


def html_forbidden(reply):
    html(reply, 403)


def html_not_found(reply):
    html(reply, 404)


def half(reply):
    """A body that is cut off, with the length of what is there."""
    reply.body = reply.body[: len(reply.body) // 2]


def broken_off(reply):
    """A body that is cut off, with the length of the whole body."""
    reply.length = len(reply.body)
    half(reply)


def json(text):
    def replace(reply):
        reply.body = text

    replace.__name__ = text.decode()
    return replace


@dataclass
class AnswerProxy:
    """A proxy that calls `replace` with each answer, or with the next `times` ones.

    Attributes:
        replaced: Number of answers that were replaced.
    """

    target: str
    replace: object = None
    times: int | None = None
    replaced: int = 0
    endpoint: str = field(init=False)

    def __enter__(self):
        parts = urlsplit(self.target)
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self):
                # A client may close a connection in the middle of an answer.
                with contextlib.suppress(ConnectionError):
                    super().handle_one_request()
                    return
                self.close_connection = True

            def forward(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                upstream = http.client.HTTPConnection(parts.hostname, parts.port)
                with contextlib.closing(upstream):
                    # The service refuses requests with the address of another server in the header Host.
                    headers = dict(self.headers) | {"Host": parts.netloc}
                    upstream.request(self.command, self.path, body or None, headers)
                    answer = upstream.getresponse()
                    headers = {name.lower(): value for name, value in answer.headers.items()}
                    reply = Reply(self.command, self.path, answer.status, headers, answer.read())
                proxy.send(self, reply)

            do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = forward  # noqa: N815 - the names of http.server

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        # Do not wait for idle connections.
        self._server.daemon_threads = True
        self.endpoint = f"{parts.scheme}://127.0.0.1:{self._server.server_port}{parts.path}"
        Thread(target=self._server.serve_forever, daemon=True, args=(0.01,)).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def fault(self, replace, times=None):
        self.replace, self.times, self.replaced = replace, times, 0

    def send(self, handler, reply):
        if self.replace is not None and (self.times is None or self.replaced < self.times):
            self.replaced += 1
            self.replace(reply)
        blocks = [reply.body] if isinstance(reply.body, bytes) else reply.body
        length = len(reply.body) if reply.length is None and isinstance(reply.body, bytes) else reply.length
        if reply.method == "HEAD":
            length = reply.headers.get("content-length", 0)
        handler.send_response_only(reply.status)
        for name, value in reply.headers.items():
            if name not in {"content-length", "transfer-encoding", "connection"}:
                handler.send_header(name, value)
        handler.send_header("Content-Length", length)
        handler.end_headers()
        if reply.method == "HEAD":
            return
        sent = 0
        for block in blocks:
            handler.wfile.write(block)
            sent += len(block)
        if sent < length:
            handler.close_connection = True
