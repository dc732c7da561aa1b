"""What the pipeline costs and how far its figures can be trusted: ``python -m benchmarks.NAME``."""
