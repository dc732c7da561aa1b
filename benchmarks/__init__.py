"""Measurements of the pipeline's cost and of the reliability of its scores: ``python -m benchmarks.NAME``."""
