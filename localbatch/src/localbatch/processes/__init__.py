"""Processes, sockets and certificates of this machine."""
