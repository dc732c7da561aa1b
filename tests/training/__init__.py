"""Tests of ``pipeline.training``."""
