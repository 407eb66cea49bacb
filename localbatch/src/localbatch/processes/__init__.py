"""Processes, sockets, certificates and private files of this machine."""
