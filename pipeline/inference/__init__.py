"""Applying trained models: test-time augmentation, attention maps, new images."""
