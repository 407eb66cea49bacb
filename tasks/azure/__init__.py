"""Clients for the Azure Batch account and the storage account, built on the official SDKs."""
