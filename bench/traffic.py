"""The requests of the flow to both accounts, counted below their SDKs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, urlsplit

import requests

Send = Callable[..., requests.Response]

KINDS = {"GET": "get", "HEAD": "get", "PUT": "put", "DELETE": "delete"}


class Traffic:
    """Counts requests.

    Attributes:
        requests: The number of requests by service and kind, such as "storage list".
        bytes_read: The bytes of all bodies from Storage.
        simulation_cpu_seconds: The time of the threads of this process in a simulated storage account.
    """

    def __init__(self, storage_endpoint: str, simulated: Send | None = None) -> None:
        self.requests: Counter[str] = Counter()
        self.bytes_read = 0
        self.simulation_cpu_seconds = 0.0
        self._storage_endpoint = storage_endpoint
        self._simulated = simulated
        self._lock = Lock()

    def send(self, send: Send, method: str, url: str, **options: Any) -> requests.Response:
        """Send a request to Batch, to Storage, or to the simulated Storage."""
        if not url.startswith(self._storage_endpoint):
            with self._lock:
                self.requests["batch"] += 1
            return send(method, url, **options)
        started = time.thread_time()
        response = (self._simulated or send)(method, url, **options)
        ended = time.thread_time()
        is_listing = "list" in parse_qs(urlsplit(url).query).get("comp", [])
        size = response.headers.get("content-length") if options.get("stream") else len(response.content)
        with self._lock:
            self.requests[f"storage {'list' if is_listing else KINDS.get(method, 'other')}"] += 1
            self.bytes_read += int(size or 0) if method == "GET" else 0
            self.simulation_cpu_seconds += ended - started if self._simulated else 0
        return response
