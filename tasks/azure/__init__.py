"""The two Azure accounts, behind the official SDKs."""
