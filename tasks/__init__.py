"""The steps of the flow, the adapters that they use, and the values that they pass to each other."""
