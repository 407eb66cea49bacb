"""Faults that a script injects."""
