"""A local Azure: Azurite for Blob Storage, and a server of the Azure Batch REST API."""
