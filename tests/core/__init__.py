"""Tests of ``pipeline.core``."""
