"""A webhook server on the loopback interface."""

from __future__ import annotations

import http.server
import json
import threading
from contextlib import contextmanager


@contextmanager
def listening_webhook():
    """Run a webhook server; `url` is its address and `texts` lists the notices that it received."""
    texts = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            texts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    server.texts = texts
    server.url = f"http://127.0.0.1:{server.server_port}/"
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
