"""Tests of the whole pipeline, of dvc.yaml and of the documents."""
