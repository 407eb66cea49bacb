"""Listening sockets on 127.0.0.1, and the connections of an event loop."""

from __future__ import annotations

import asyncio
import socket


def choose_port(wanted: int) -> int:
    """Return the wanted port of 127.0.0.1 if it is free, or else another."""
    with listen(wanted) as listener:
        return int(listener.getsockname()[1])


def listen(wanted: int) -> socket.socket:
    """Listen on a port of 127.0.0.1, or if it is taken on a free one."""
    for port in (wanted, 0):
        # With the protocol named, asyncio sees that it is TCP and turns Nagle's algorithm off: 40 ms a request.
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
    raise AssertionError  # The second port is always free.


async def abort_connections() -> None:
    """Close every connection of this event loop.

    A server does not know connections whose TLS handshake has not finished, and may give up on others. Only the event
    loop knows them all, in an attribute that is not public; asyncio has no other list of them before Python 3.13.
    """
    for transport in list(getattr(asyncio.get_running_loop(), "_transports", {}).values()):
        transport.abort()
    await asyncio.sleep(0)
