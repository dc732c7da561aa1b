"""Tests of ``pipeline.sources``."""
