"""The servers that a run or `make up` starts."""
