"""The counting in C, and the module that loads it."""
