"""The REST API: requests, responses and one handler for each operation."""
