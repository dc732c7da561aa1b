"""Tests of ``pipeline.simulation``."""
