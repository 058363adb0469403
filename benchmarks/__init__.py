"""Benchmarks: each compares side by side in one run; see ``results/README.md``."""
