"""Tests of ``pipeline.stages``."""
