"""Tests of ``pipeline.data``."""
