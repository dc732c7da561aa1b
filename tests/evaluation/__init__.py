"""Tests of ``pipeline.evaluation``."""
