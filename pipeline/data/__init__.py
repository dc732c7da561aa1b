"""Packed images to training batches: folds, duplicates, augmentation, sampling, loading."""
