"""Tests of ``pipeline.reporting``."""
