"""A private certificate authority, and the token endpoint of a managed identity."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from authority_support import BATCH, STORAGE, TENANT, VALIDITY, issue, make_authority, mint  # noqa: F401


class ManagedIdentity:
    """The token endpoint of a machine with a managed identity; a context manager.

    Source: "How to use managed identities for App Service", REST endpoint reference.

    Attributes:
        claims: Claims that replace those of a valid token.
        resources: The resources that tokens were requested for.
    """

    HEADER = "the secret header of this endpoint"

    def __init__(self):
        identity = self
        self.claims = {}
        self.resources = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                query = parse_qs(urlsplit(self.path).query)
                is_known = self.headers.get("X-IDENTITY-HEADER") == identity.HEADER
                content = json.dumps(identity.answer(query["resource"][0]) if is_known else {}).encode()
                self.send_response(200 if is_known else 401)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def answer(self, resource):
        self.resources.append(resource)
        token = mint(aud=resource, **self.claims) if "aud" not in self.claims else mint(**self.claims)
        return {
            "access_token": token,
            "expires_on": str(int(time.time()) + 3600),
            "resource": resource,
            "token_type": "Bearer",
        }

    @property
    def environment(self):
        """The variables that lead `azure.identity` to this endpoint."""
        port = self._server.server_address[1]
        return {"IDENTITY_ENDPOINT": f"http://127.0.0.1:{port}/msi/token", "IDENTITY_HEADER": self.HEADER}

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
