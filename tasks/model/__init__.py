"""Values that the steps pass to each other. They depend neither on Azure nor on Prefect."""
