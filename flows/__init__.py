"""The flows and the `topn` command."""
