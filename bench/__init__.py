"""The benchmarks. They are not part of the product."""
