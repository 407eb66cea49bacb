"""A private authority, and Microsoft Entra ID as far as a machine with a managed identity meets it."""

from __future__ import annotations

import base64
import ipaddress
import json
import threading
import time
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from localbatch.certificate import Certificate

TENANT = "72f988bf-0000-0000-0000-2d7cd011db47"
BATCH = "https://batch.core.windows.net/"
STORAGE = "https://storage.azure.com"

VALIDITY = (timedelta(minutes=-1), timedelta(days=1))


def issue(name, key, *, by, by_key, is_authority=False, addresses=(), validity=VALIDITY):
    now = datetime.now(timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(by)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + validity[0])
        .not_valid_after(now + validity[1])
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by_key.public_key()), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if addresses:
        builder = builder.add_extension(x509.SubjectAlternativeName(addresses), critical=False)
    return builder.sign(by_key, hashes.SHA256())


def make_authority(directory: Path, validity=VALIDITY):
    """Make a private authority; returns the file of its certificate, and a certificate of this machine that it issued."""
    ours, theirs = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "an authority for tests")])
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localbatch")])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificates = {
        "authority.pem": issue(root, ours, by=root, by_key=ours, is_authority=True),
        "local.pem": issue(name, theirs, by=root, by_key=ours, addresses=[address], validity=validity),
    }
    for file, certificate in certificates.items():
        (directory / file).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (directory / "local.key").write_bytes(
        theirs.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return directory / "authority.pem", Certificate(directory / "local.pem", directory / "local.key")


def mint(**claims):
    """Return a token as Microsoft Entra ID issues them, but for its signature."""
    now = int(time.time())
    claims = {
        "aud": BATCH,
        "iss": f"https://sts.windows.net/{TENANT}/",
        "iat": now,
        "nbf": now,
        "exp": now + 3600,
        "tid": TENANT,
        "oid": "5f1b6b5e-0000-0000-0000-0f2a4f6c1f11",
    } | claims
    parts = (json.dumps(part).encode() for part in ({"alg": "none", "typ": "JWT"}, claims))
    return ".".join([*(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts), "unsigned"])


class ManagedIdentity:
    """The endpoint from which a machine in Azure gets the tokens of its identity; a context manager.

    Source: "How to use managed identities for App Service", REST endpoint reference.

    Attributes:
        claims: What its tokens say other than they should.
        resources: For whom tokens were asked.
    """

    HEADER = "the header that proves that this machine asks"

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
        """The variables by which `azure.identity` finds it, as it would on a machine in Azure."""
        port = self._server.server_address[1]
        return {"IDENTITY_ENDPOINT": f"http://127.0.0.1:{port}/msi/token", "IDENTITY_HEADER": self.HEADER}

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
