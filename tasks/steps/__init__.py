"""The steps of a run: Prefect tasks, and what they alone use."""
