"""The benchmarks; no part of the product."""
