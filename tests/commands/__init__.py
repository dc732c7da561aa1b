"""Tests of ``pipeline.commands``."""
