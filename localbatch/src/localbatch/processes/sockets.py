"""Listening sockets on 127.0.0.1, and the connections of an event loop."""

from __future__ import annotations

import asyncio
import socket


def choose_port(wanted: int) -> int:
    """Return a port of 127.0.0.1 if it is free, or else another port."""
    with listen(wanted) as listener:
        return int(listener.getsockname()[1])


def listen(wanted: int) -> socket.socket:
    """Listen on a port of 127.0.0.1. If it is taken, listen on a free one."""
    for port in (wanted, 0):
        # asyncio turns off Nagle's algorithm only if the protocol is named, which saves 40 ms per request.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
            listener.listen(128)
        except OSError:
            listener.close()
            if not port:
                raise
            continue
        return listener
    raise AssertionError  # Port 0 always works.


async def abort_connections() -> None:
    """Close every connection of this event loop.

    A server does not know connections whose TLS handshake has not finished. Only the event loop has a list of all, in a
    private attribute; before Python 3.13 asyncio has no public one.
    """
    for transport in list(getattr(asyncio.get_running_loop(), "_transports", {}).values()):
        transport.abort()
    await asyncio.sleep(0)
