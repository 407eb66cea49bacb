"""A private authority that issues certificates, and tokens as Microsoft Entra ID issues them."""

from __future__ import annotations

import base64
import ipaddress
import json
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from localbatch.processes.certificate import Certificate

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
    addresses = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
    certificates = {
        "authority.pem": issue(root, ours, by=root, by_key=ours, is_authority=True),
        "local.pem": issue(name, theirs, by=root, by_key=ours, addresses=addresses, validity=validity),
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
