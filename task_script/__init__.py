"""The word counter that runs on a node: standard library only."""
