"""The steps of the flow, the adapters they use, and the values handed between them."""
