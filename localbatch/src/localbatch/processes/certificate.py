"""What https needs: a certificate, its key, and the trust in it of those who ask from here."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import NamedTuple


class Certificate(NamedTuple):
    """A certificate of this machine, for 127.0.0.1, as files of PEM."""

    file: Path
    key: Path

    def server_context(self) -> ssl.SSLContext:
        """Return what a server needs.

        Raises:
            OSError: The files are not there, or no certificate and its key.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.file, self.key)
        except OSError as error:
            raise OSError(f"{self.file} and {self.key} are no certificate and its key: {error}") from error
        return context

    def client_context(self) -> ssl.SSLContext:
        """Return what trusts it, whoever signed it, beside those whom this machine trusts."""
        context = ssl.create_default_context(cafile=self.file)
        context.load_default_certs()
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return context
