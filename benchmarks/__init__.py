"""Measured comparisons, each a ratio to a named rival; run `python -m benchmarks`."""
