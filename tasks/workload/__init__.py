"""What runs on a node for each file, and what its outputs mean."""
