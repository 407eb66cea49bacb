"""The report of a run: its data, charts, Markdown artifacts and HTML page."""
