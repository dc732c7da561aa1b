"""Tests of ``pipeline.search``."""
