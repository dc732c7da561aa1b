"""Tests of ``pipeline.inference``."""
