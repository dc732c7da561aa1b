"""Tests of ``pipeline.models``."""
