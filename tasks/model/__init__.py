"""The values that the steps pass to each other, without Azure and without Prefect."""
