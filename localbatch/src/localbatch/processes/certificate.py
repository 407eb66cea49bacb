"""The certificate of the servers, and the TLS contexts of servers and clients."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import NamedTuple


class Certificate(NamedTuple):
    """A certificate for 127.0.0.1 and its key, as PEM files."""

    file: Path
    key: Path

    def server_context(self) -> ssl.SSLContext:
        """Return the TLS context of a server.

        Raises:
            OSError: The files cannot be read, or are not a certificate and its key.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.file, self.key)
        except OSError as error:
            raise OSError(f"{self.file} and {self.key} are not a certificate and its key: {error}") from error
        return context

    def client_context(self) -> ssl.SSLContext:
        """Return the TLS context of a client that trusts this certificate and the authorities of the machine."""
        context = ssl.create_default_context(cafile=self.file)
        context.load_default_certs()
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return context
