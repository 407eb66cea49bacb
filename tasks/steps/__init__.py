"""The steps of a run: Prefect tasks and their helpers."""
