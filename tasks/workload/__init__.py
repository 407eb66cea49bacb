"""Workloads: the command that runs on a node for each file, and the meaning of its outputs."""
