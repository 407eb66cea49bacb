"""The `topn` command."""
