"""Nodes: they run Batch tasks and move files."""
