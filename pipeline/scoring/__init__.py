"""Probabilities to decisions and scores: thresholds, blends, metrics, intervals."""
