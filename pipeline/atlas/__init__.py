"""Images on disk to batches: archives, the packed array, folds, views, augmentation."""
