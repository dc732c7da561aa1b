"""From packed images to training batches: duplicates, folds, augmentation, sampling, loading."""
